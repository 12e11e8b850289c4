// The adjoint of selective_scan. With g the derivative by y, and G_t that by h_t:
//
//   G_t = C_t g_t + a_{t+1} G_{t+1}, a_t = exp(delta_t A), 0 where the state restarts;
//   du = delta B.G + D g,   ddelta = u B.G + sum_n A_n G_n a_n h_{t-1,n},   dD = sum g u,
//   dA = sum_t delta G a h_{t-1},   dB = delta u G,   dC = g h,   dstart = a_0 G_0.
//
// As selective_scan, from the last step to the first; from the state before each STEPS steps, which
// that kernel noted, a lane runs them again, one state after the other. Sums over lanes go by
// shuffles, sums over channels by warp, by block, and by whoever launches: all in a fixed order.
//
// Given before this text: as for selective_scan, without REDUCE.

#define CHANNELS (THREADS / LANES)
#define WARPS (THREADS / WARP)
#define PADDED (LANES * PER_LANE)
#define SHARE(n) (((n) + THREADS - 1) / THREADS)
#define WHOLE(n) (SHARE(n) * THREADS)

__device__ __forceinline__ int state_of(int lane, int i) {
    return (i / VECTOR * LANES + lane) * VECTOR + i % VECTOR;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
selective_scan_backward(
    const REAL* __restrict__ u, i64 u_row, i64 u_time, i64 u_channel,
    const REAL* __restrict__ delta, i64 delta_row, i64 delta_time, i64 delta_channel,
    const REAL* __restrict__ A, i64 A_channel, i64 A_state,
    const REAL* __restrict__ B, i64 B_row, i64 B_time, i64 B_state,
    const REAL* __restrict__ C, i64 C_row, i64 C_time, i64 C_state,
    const REAL* __restrict__ D, i64 D_channel,
    const bool* __restrict__ reset, i64 reset_row, i64 reset_time,
    const REAL* __restrict__ g, i64 g_row, i64 g_time, i64 g_channel,
    const REAL* __restrict__ last, i64 last_row, i64 last_channel, i64 last_state,  // or null
    const REAL* __restrict__ checkpoints,  // (rows, ceil(length / STEPS), channels, STATES)
    REAL* __restrict__ du,                 // (rows, length, channels)
    REAL* __restrict__ ddelta,             // (rows, length, channels)
    REAL* __restrict__ dA,                 // (rows, channels, STATES)
    REAL* __restrict__ dB,                 // (rows, groups, length, STATES)
    REAL* __restrict__ dC,                 // (rows, groups, length, STATES)
    REAL* __restrict__ dD,                 // (rows, channels)
    REAL* __restrict__ dstart,             // (rows, channels, STATES)
    i64 length, i64 channels)
{
    __shared__ __align__(16) REAL in_B[WHOLE(STEPS * PADDED)], in_C[WHOLE(STEPS * PADDED)];
    __shared__ REAL in_u[WHOLE(STEPS * CHANNELS)], in_delta[WHOLE(STEPS * CHANNELS)];
    __shared__ REAL in_g[WHOLE(STEPS * CHANNELS)];
    __shared__ REAL sum_B[STEPS * CHANNELS], sum_A[STEPS * CHANNELS], sum_D[THREADS];
    __shared__ REAL part_B[WARPS][STEPS * PADDED], part_C[WARPS][STEPS * PADDED];
    __shared__ int cut[STEPS];
    const i64 groups = (channels + CHANNELS - 1) / CHANNELS, tiles = (length + STEPS - 1) / STEPS;
    const i64 row = blockIdx.x / groups, group = blockIdx.x % groups, first = group * CHANNELS;
    const int here = min((i64)CHANNELS, channels - first);
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES;
    const int warp = threadIdx.x / WARP;
    const bool exists = channel < here;

    REAL decay[PER_LANE], adjoint[PER_LANE], by_A[PER_LANE], by_D = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = state_of(lane, i);
        const bool used = exists && n < STATES;
        decay[i] = used ? A[(first + channel) * A_channel + n * A_state] : 0;
        adjoint[i] = used && last ? last[row * last_row + (first + channel) * last_channel +
                                         n * last_state] : 0;
        by_A[i] = 0;
    }
    u += row * u_row + first * u_channel;
    delta += row * delta_row + first * delta_channel;
    g += row * g_row + first * g_channel;
    B += row * B_row;
    C += row * C_row;
    du += row * length * channels + first;
    ddelta += row * length * channels + first;
    dB += (row * groups + group) * length * STATES;
    dC += (row * groups + group) * length * STATES;
    // The channel of all that this thread brings and takes.
    const int mine = threadIdx.x % CHANNELS;
    const REAL through = D && mine < here ? D[(first + mine) * D_channel] : 0;

    for (i64 tile = tiles - 1; tile >= 0; --tile) {
        const i64 t0 = tile * STEPS;
        const int steps = min((i64)STEPS, length - t0);
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * CHANNELS); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS;
            const bool used = t < steps && mine < here;
            in_u[i] = used ? u[(t0 + t) * u_time + mine * u_channel] : 0;
            in_delta[i] = used ? delta[(t0 + t) * delta_time + mine * delta_channel] : 0;
            in_g[i] = used ? g[(t0 + t) * g_time + mine * g_channel] : 0;
        }
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * PADDED); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / PADDED, n = i % PADDED;
            const bool used = t < steps && n < STATES;
            in_B[i] = used ? B[(t0 + t) * B_time + n * B_state] : 0;
            in_C[i] = used ? C[(t0 + t) * C_time + n * C_state] : 0;
        }
        if ((int)threadIdx.x < STEPS)
            cut[threadIdx.x] = RESETS && (int)threadIdx.x < steps &&
                               reset[row * reset_row + (t0 + threadIdx.x) * reset_time];
        __syncthreads();
        REAL with_B[STEPS], with_A[STEPS];
#pragma unroll
        for (int t = 0; t < STEPS; ++t) with_B[t] = with_A[t] = 0;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            const int n = state_of(lane, i);
            const i64 at = ((row * tiles + tile) * channels + first + channel) * STATES + n;
            // Beyond the last step delta, u and g are 0: the state stays, nothing is added.
            REAL h = exists && n < STATES ? checkpoints[at] : 0;
            REAL a[STEPS], moved[STEPS], now[STEPS];
#pragma unroll
            for (int t = 0; t < STEPS; ++t) {
                const REAL step = in_delta[t * CHANNELS + channel];
                const Power<REAL> p = power(step * decay[i]);
                a[t] = cut[t] ? 0 : multiply_add(p.scale, p.rest, p.scale);
                moved[t] = cut[t] ? 0 : a[t] * h;
                h = multiply_add(step * in_u[t * CHANNELS + channel], in_B[t * PADDED + n],
                                 moved[t]);
                now[t] = h;
            }
#pragma unroll
            for (int t = STEPS - 1; t >= 0; --t) {
                const REAL step = in_delta[t * CHANNELS + channel];
                const REAL out = in_g[t * CHANNELS + channel];
                const REAL full = multiply_add(in_C[t * PADDED + n], out, adjoint[i]);
                const REAL weight = full * moved[t];
                by_A[i] = multiply_add(weight, step, by_A[i]);
                with_A[t] = multiply_add(weight, decay[i], with_A[t]);
                with_B[t] = multiply_add(full, in_B[t * PADDED + n], with_B[t]);
                adjoint[i] = cut[t] ? 0 : a[t] * full;
                REAL to_B = step * in_u[t * CHANNELS + channel] * full, to_C = out * now[t];
#pragma unroll
                for (int far = LANES; far < WARP; far *= 2) {
                    to_B += __shfl_xor_sync(ALL_LANES, to_B, far);
                    to_C += __shfl_xor_sync(ALL_LANES, to_C, far);
                }
                if (threadIdx.x % WARP < LANES) {
                    part_B[warp][t * PADDED + n] = to_B;
                    part_C[warp][t * PADDED + n] = to_C;
                }
            }
        }
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
#pragma unroll
            for (int far = 1; far < LANES; far *= 2) {
                with_B[t] += __shfl_xor_sync(ALL_LANES, with_B[t], far);
                with_A[t] += __shfl_xor_sync(ALL_LANES, with_A[t], far);
            }
            if (lane == 0) {
                sum_B[t * CHANNELS + channel] = with_B[t];
                sum_A[t * CHANNELS + channel] = with_A[t];
            }
        }
        __syncthreads();
        // Each thread overwrites next what it alone reads here, or what lies behind a barrier.
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * CHANNELS); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS;
            if (t >= steps || mine >= here) continue;
            const i64 at = (t0 + t) * channels + mine;
            du[at] = multiply_add(in_delta[i], sum_B[i], through * in_g[i]);
            ddelta[at] = multiply_add(in_u[i], sum_B[i], sum_A[i]);
            by_D = multiply_add(in_g[i], in_u[i], by_D);
        }
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * PADDED); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / PADDED, n = i % PADDED;
            if (t >= steps || n >= STATES) continue;
            REAL to_B = 0, to_C = 0;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                to_B += part_B[w][i];
                to_C += part_C[w][i];
            }
            dB[(t0 + t) * STATES + n] = to_B;
            dC[(t0 + t) * STATES + n] = to_C;
        }
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = state_of(lane, i);
        const i64 at = (row * channels + first + channel) * STATES + n;
        if (!exists || n >= STATES) continue;
        dA[at] = by_A[i];
        dstart[at] = adjoint[i];
    }
    sum_D[threadIdx.x] = by_D;
    __syncthreads();
    if ((int)threadIdx.x >= here) return;
    REAL total = 0;
    for (int j = 0; j < LANES; ++j) total += sum_D[j * CHANNELS + threadIdx.x];
    dD[row * channels + first + threadIdx.x] = total;
}

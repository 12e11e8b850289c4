// h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t, for all channels of all
// rows; h_{t-1} is taken as 0 where reset_t.
//
// Time runs serially; LANES threads share the states of one channel, PER_LANE of them each in
// registers, and a block has CHANNELS channels of one row, which read the same B and C. STEPS steps
// at a time are brought to shared memory. A state is carried as a sum of two numbers: one alone
// drifts by half an ulp a step.
//
// Given before this text: REAL, STATES, LANES (a power of two up to 32), PER_LANE (LANES of them
// hold all STATES), VECTOR (divides PER_LANE: neighbouring states of a thread), STEPS, THREADS,
// RESETS. Strides are in elements, of any sign.

#define CHANNELS (THREADS / LANES)
#define PADDED (LANES * PER_LANE)
// How many of n values each thread handles, and how many that makes.
#define SHARE(n) (((n) + THREADS - 1) / THREADS)
#define WHOLE(n) (SHARE(n) * THREADS)

__device__ __forceinline__ float product(float x, float y) { return __fmul_rn(x, y); }
__device__ __forceinline__ double product(double x, double y) { return __dmul_rn(x, y); }
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// high + low, of which ``low`` is what rounding took from ``high``.
struct State {
    REAL high, low;

    // this <- a this + d b, compensated (Kahan; the loss of the product by fused multiply-add).
    __device__ __forceinline__ void advance(REAL a, REAL d, REAL b) {
        const REAL moved = product(a, high);
        const REAL lost = multiply_add(a, low, multiply_add(a, high, -moved));
        const REAL added = multiply_add(d, b, lost);
        high = moved + added;
        low = added - (high - moved);
    }
};

// Which state is the i-th of a lane.
__device__ __forceinline__ int state_of(int lane, int i) {
    return (i / VECTOR * LANES + lane) * VECTOR + i % VECTOR;
}

extern "C" __global__ void __launch_bounds__(THREADS)
selective_scan(const REAL* __restrict__ u, i64 u_row, i64 u_time, i64 u_channel,
               const REAL* __restrict__ delta, i64 delta_row, i64 delta_time, i64 delta_channel,
               const REAL* __restrict__ A, i64 A_channel, i64 A_state,
               const REAL* __restrict__ B, i64 B_row, i64 B_time, i64 B_state,
               const REAL* __restrict__ C, i64 C_row, i64 C_time, i64 C_state,
               const REAL* __restrict__ D, i64 D_channel,
               const bool* __restrict__ reset, i64 reset_row, i64 reset_time,
               const REAL* __restrict__ start, i64 start_row, i64 start_channel, i64 start_state,
               REAL* __restrict__ y,     // (rows, length, channels)
               REAL* __restrict__ last,  // (rows, channels, STATES)
               i64 length, i64 channels)
{
    __shared__ __align__(16) REAL in_B[WHOLE(STEPS * PADDED)], in_C[WHOLE(STEPS * PADDED)];
    __shared__ REAL in_u[WHOLE(STEPS * CHANNELS)], in_delta[WHOLE(STEPS * CHANNELS)];
    __shared__ REAL out[STEPS * CHANNELS];
    __shared__ int cut[STEPS];
    const i64 groups = (channels + CHANNELS - 1) / CHANNELS;
    const i64 row = blockIdx.x / groups, first = blockIdx.x % groups * CHANNELS;
    const int here = min((i64)CHANNELS, channels - first);  // channels of this block
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES;
    const bool exists = channel < here;

    State h[PER_LANE];
    REAL decay[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = state_of(lane, i);
        const bool used = exists && n < STATES;
        decay[i] = used ? A[(first + channel) * A_channel + n * A_state] : 0;
        h[i].high = used && start ? start[row * start_row + (first + channel) * start_channel +
                                          n * start_state] : 0;
        h[i].low = 0;
    }
    u += row * u_row + first * u_channel;
    delta += row * delta_row + first * delta_channel;
    B += row * B_row;
    C += row * C_row;
    if (D) D += first * D_channel;
    y += row * length * channels + first;

    for (i64 t0 = 0; t0 < length; t0 += STEPS) {
        const int steps = min((i64)STEPS, length - t0);
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * CHANNELS); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS, c = i % CHANNELS;
            const bool used = t < steps && c < here;
            in_u[i] = used ? u[t * u_time + c * u_channel] : 0;
            in_delta[i] = used ? delta[t * delta_time + c * delta_channel] : 0;
        }
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * PADDED); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / PADDED, n = i % PADDED;
            const bool used = t < steps && n < STATES;
            in_B[i] = used ? B[t * B_time + n * B_state] : 0;
            in_C[i] = used ? C[t * C_time + n * C_state] : 0;
        }
        if (RESETS && (int)threadIdx.x < steps)
            cut[threadIdx.x] = reset[row * reset_row + (t0 + threadIdx.x) * reset_time];
        __syncthreads();
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            if (t >= steps) break;
            const REAL step = in_delta[t * CHANNELS + channel];
            const REAL drive = product(step, in_u[t * CHANNELS + channel]);
            REAL sum = 0;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                const int n = state_of(lane, i);
                if (RESETS && cut[t]) h[i] = State{0, 0};
                h[i].advance(exponential(product(step, decay[i])), drive, in_B[t * PADDED + n]);
                sum = multiply_add(in_C[t * PADDED + n], h[i].high, sum);
            }
#pragma unroll
            for (int far = 1; far < LANES; far *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, far);
            if (lane == 0) out[t * CHANNELS + channel] = sum;
        }
        __syncthreads();
        // Each thread overwrites next what it alone reads here.
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * CHANNELS); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS, c = i % CHANNELS;
            if (t < steps && c < here) {
                const REAL through = D ? product(D[c * D_channel], in_u[i]) : 0;
                y[t * channels + c] = out[i] + through;
            }
        }
        u += STEPS * u_time;
        delta += STEPS * delta_time;
        B += STEPS * B_time;
        C += STEPS * C_time;
        y += STEPS * channels;
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = state_of(lane, i);
        if (exists && n < STATES)
            last[(row * channels + first + channel) * STATES + n] = h[i].high;
    }
}

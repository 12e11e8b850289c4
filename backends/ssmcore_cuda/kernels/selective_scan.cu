// h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t, for all channels of all
// rows; h_{t-1} is taken as 0 where reset_t.
//
// Time runs serially; LANES threads share the states of one channel, PER_LANE of them each in
// registers, and a block has CHANNELS channels of one row, which read the same B and C. STEPS steps
// at a time are brought to shared memory. A state is carried as a sum of two numbers: one alone
// drifts by half an ulp a step.
//
// Where there are too few channels to fill a device the time is cut into segments: with REDUCE the
// kernel returns what each segment does to a state, h -> map_a h + map_b, linear_scan the state
// after each, and the kernel without REDUCE starts from those.
//
// Given before this text: REAL, STATES, LANES (a power of two up to 32), PER_LANE (LANES of them
// hold all STATES), VECTOR (divides PER_LANE: neighbouring states of a thread), STEPS, THREADS,
// RESETS, REDUCE, PACKED (arrays only, without gaps, and no D; see below). Strides are in elements,
// of any sign.

#define CHANNELS (THREADS / LANES)
#define PADDED (LANES * PER_LANE)
// How many of n values each thread handles, and how many that makes.
#define SHARE(n) (((n) + THREADS - 1) / THREADS)
#define WHOLE(n) (SHARE(n) * THREADS)
// Blocks that share a multiprocessor at least: a bound on registers that no case needs to exceed.
#define RESIDENT (STEPS == 1 ? 8 : PER_LANE <= 4 ? 4 : sizeof(State) * PER_LANE > 64 ? 2 : 3)

// NaN where x is, else 0: what a state starts from, so that NaN in A, which power() drops, is not
// lost.
__device__ __forceinline__ REAL not_a_number(REAL x) { return x == x ? 0 : x; }

// high + low, of which ``low`` is what rounding took from ``high``.
struct State {
    REAL high, low;

    // this <- a this + d b, compensated; exact where a this is the larger part (Fast2Sum), which
    // is where losses would pile up.
    __device__ __forceinline__ void advance(Power<REAL> a, REAL d, REAL b) {
        const REAL kept = a.scale * high;
        const REAL added = multiply_add(a.rest, kept, multiply_add(d, b, a.scale * low));
        high = kept + added;
        low = added - (high - kept);
    }
    // this <- a this
    __device__ __forceinline__ void scale(Power<REAL> a) { advance(a, 0, 0); }
    __device__ __forceinline__ double whole() const { return (double)high + (double)low; }
};

__device__ __forceinline__ State halves(double x) {
    const REAL high = (REAL)x;
    return State{high, (REAL)(x - (double)high)};
}

// Which state is the i-th of a lane.
__device__ __forceinline__ int state_of(int lane, int i) {
    return (i / VECTOR * LANES + lane) * VECTOR + i % VECTOR;
}

#if PACKED
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan(const REAL* __restrict__ u, const REAL* __restrict__ delta,
               const REAL* __restrict__ A, const REAL* __restrict__ B, const REAL* __restrict__ C,
               const bool* __restrict__ reset, const REAL* __restrict__ start,
               const double* __restrict__ after,
               const int* __restrict__ sizes,  // length, channels, segments, segment
#if REDUCE
               double* __restrict__ map_a, double* __restrict__ map_b, bool* __restrict__ map_cut)
#else
               REAL* __restrict__ y, REAL* __restrict__ last)
#endif
{
    const i64 length = sizes[0], channels = sizes[1], segments = sizes[2], segment = sizes[3];
    const i64 u_row = length * channels, u_time = channels, u_channel = 1;
    const i64 delta_row = u_row, delta_time = channels, delta_channel = 1;
    const i64 A_channel = STATES, A_state = 1;
    const i64 B_row = length * STATES, B_time = STATES, B_state = 1;
    const i64 C_row = B_row, C_time = STATES, C_state = 1;
    const i64 reset_row = length, reset_time = 1;
    const i64 start_row = channels * STATES, start_channel = STATES, start_state = 1;
    const REAL* D = nullptr;
    const i64 D_channel = 0;
    REAL* const checkpoints = nullptr;
#if REDUCE
    REAL *y = nullptr, *last = nullptr;
#else
    double *map_a = nullptr, *map_b = nullptr;
    bool* map_cut = nullptr;
#endif
#else
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan(const REAL* __restrict__ u, i64 u_row, i64 u_time, i64 u_channel,
               const REAL* __restrict__ delta, i64 delta_row, i64 delta_time, i64 delta_channel,
               const REAL* __restrict__ A, i64 A_channel, i64 A_state,
               const REAL* __restrict__ B, i64 B_row, i64 B_time, i64 B_state,
               const REAL* __restrict__ C, i64 C_row, i64 C_time, i64 C_state,
               const REAL* __restrict__ D, i64 D_channel,
               const bool* __restrict__ reset, i64 reset_row, i64 reset_time,
               const REAL* __restrict__ start, i64 start_row, i64 start_channel, i64 start_state,
               const double* __restrict__ after,  // (rows, segments, channels, STATES), or null
               REAL* __restrict__ y,              // (rows, length, channels)
               REAL* __restrict__ last,           // (rows, channels, STATES)
               double* __restrict__ map_a,        // (rows, segments, channels, STATES); these
               double* __restrict__ map_b,        // two and the next where REDUCE, y and last
               bool* __restrict__ map_cut,        // (rows, segments) where not
               REAL* __restrict__ checkpoints,    // before each STEPS steps, or null:
                                                  // (rows, ceil(length / STEPS), channels, STATES)
               i64 length, i64 channels, i64 segments, i64 segment)
{
#endif
    __shared__ __align__(16) REAL in_B[WHOLE(STEPS * PADDED)], in_C[WHOLE(STEPS * PADDED)];
    __shared__ REAL in_u[WHOLE(STEPS * CHANNELS)], in_delta[WHOLE(STEPS * CHANNELS)];
    __shared__ REAL out[STEPS * CHANNELS];
    __shared__ int cut[STEPS];
    const i64 groups = (channels + CHANNELS - 1) / CHANNELS;
    const i64 s = blockIdx.x % segments, group = blockIdx.x / segments % groups;
    const i64 row = blockIdx.x / segments / groups, first = group * CHANNELS;
    const i64 begin = s * segment, end = min(length, begin + segment);
    const int here = min((i64)CHANNELS, channels - first);  // channels of this block
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES;
    const bool exists = channel < here;

    State h[PER_LANE], whole[REDUCE ? PER_LANE : 1];
    REAL decay[PER_LANE];
    bool restarted = false;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = state_of(lane, i);
        const bool used = exists && n < STATES;
        decay[i] = used ? A[(first + channel) * A_channel + n * A_state] : 0;
        if (REDUCE) whole[i] = State{1, 0};
        h[i] = State{not_a_number(decay[i]), 0};
        if (REDUCE || !used) continue;
        if (s > 0) {
            const i64 before = (row * segments + s - 1) * channels + first + channel;
            h[i] = halves(after[before * STATES + n]);
        } else if (start) {
            h[i].high += start[row * start_row + (first + channel) * start_channel +
                               n * start_state];
        }
    }
    u += row * u_row + begin * u_time + first * u_channel;
    delta += row * delta_row + begin * delta_time + first * delta_channel;
    B += row * B_row + begin * B_time;
    C += row * C_row + begin * C_time;
    if (D) D += first * D_channel;
    y += (row * length + begin) * channels + first;

    for (i64 t0 = begin; t0 < end; t0 += STEPS) {
        const int steps = min((i64)STEPS, end - t0);
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
            if (!REDUCE) in_C[i] = used ? C[t * C_time + n * C_state] : 0;
        }
        if (RESETS && (int)threadIdx.x < steps)
            cut[threadIdx.x] = reset[row * reset_row + (t0 + threadIdx.x) * reset_time];
        __syncthreads();
        if (!REDUCE && checkpoints) {
            const i64 tile = row * ((length + STEPS - 1) / STEPS) + t0 / STEPS;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                const int n = state_of(lane, i);
                if (exists && n < STATES)
                    checkpoints[(tile * channels + first + channel) * STATES + n] = h[i].high;
            }
        }
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            if (t >= steps) break;
            const REAL step = in_delta[t * CHANNELS + channel];
            const REAL drive = step * in_u[t * CHANNELS + channel];
            if (RESETS && cut[t]) restarted = true;
            REAL sum = 0;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                const int n = state_of(lane, i);
                const Power<REAL> a = power(step * decay[i]);
                if (RESETS && cut[t]) h[i] = State{not_a_number(decay[i]), 0};
                h[i].advance(a, drive, in_B[t * PADDED + n]);
                if (REDUCE) whole[i].scale(a);
                else sum = multiply_add(in_C[t * PADDED + n], h[i].high, sum);
            }
            if (!REDUCE) {
#pragma unroll
                for (int far = 1; far < LANES; far *= 2)
                    sum += __shfl_xor_sync(ALL_LANES, sum, far);
                if (lane == 0) out[t * CHANNELS + channel] = sum;
            }
        }
        __syncthreads();
        // Each thread overwrites next what it alone reads here.
#pragma unroll
        for (int k = 0; k < SHARE(STEPS * CHANNELS); ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS, c = i % CHANNELS;
            if (!REDUCE && t < steps && c < here) {
                const REAL through = D ? D[c * D_channel] * in_u[i] : 0;
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
        if (!exists || n >= STATES) continue;
        if (REDUCE) {
            const i64 at = ((row * segments + s) * channels + first + channel) * STATES + n;
            map_a[at] = whole[i].whole();
            map_b[at] = h[i].whole();
        } else if (s == segments - 1) {
            last[(row * channels + first + channel) * STATES + n] = h[i].high;
        }
    }
    if (REDUCE && group == 0 && threadIdx.x == 0) map_cut[row * segments + s] = restarted;
}

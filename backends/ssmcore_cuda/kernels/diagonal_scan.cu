// x_t = a x_{t-1} + B u_t, y_t = Re(C x_t), for all channels of all rows, each with states of its
// own; x_{t-1} is taken as 0 where not keep_t.
//
// Time runs serially; LANES threads share the states of one channel, PER_LANE of them each in
// registers, so that no state but the last is ever written, and a block has CHANNELS channels of
// one row. STEPS steps at a time are brought to shared memory. States and sums are carried in
// double precision whatever the data, as in linear_scan.cu.
//
// Where there are too few channels to fill a device the time is cut into segments: with REDUCE the
// kernel returns the states that each segment ends with if it starts from zero, linear_scan over
// those the states after each, and the kernel without REDUCE starts from these.
//
// Given before this text: REAL, IS_COMPLEX, STATES, LANES (a power of two up to 32), PER_LANE
// (LANES of them hold all STATES), STEPS, THREADS, RESETS (there are restarts), REDUCE. Strides are
// in elements, of any sign.

#if IS_COMPLEX
typedef Complex<REAL> Data;
typedef Complex<double> Wide;
#else
typedef REAL Data;
typedef double Wide;
#endif

#define CHANNELS (THREADS / LANES)
// How many of STEPS x CHANNELS numbers each thread moves, and how many that makes.
#define SHARE ((STEPS * CHANNELS + THREADS - 1) / THREADS)
#define WHOLE (SHARE * THREADS)

__device__ __forceinline__ double scaled(double x, double by) { return x * by; }
__device__ __forceinline__ Complex<double> scaled(Complex<double> x, double by) {
    return Complex<double>{x.re * by, x.im * by};
}
// sum + Re(c x)
__device__ __forceinline__ double add_real(double c, double x, double sum) {
    return fma(c, x, sum);
}
__device__ __forceinline__ double add_real(Complex<double> c, Complex<double> x, double sum) {
    return fma(c.re, x.re, fma(-c.im, x.im, sum));
}

// Blocks that share a multiprocessor at least: a bound on registers that no case needs to exceed.
#define RESIDENT (sizeof(Wide) * PER_LANE > 32 ? 3 : 4)

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
diagonal_scan(const Data* __restrict__ a, i64 a_channel, i64 a_state,
              const Data* __restrict__ B, i64 B_channel, i64 B_state,
              const Data* __restrict__ C, i64 C_channel, i64 C_state,
              const REAL* __restrict__ u, i64 u_row, i64 u_time, i64 u_channel,
              const bool* __restrict__ keep, i64 keep_row, i64 keep_time,
              const Data* __restrict__ start, i64 start_row, i64 start_channel, i64 start_state,
              const Wide* __restrict__ after,  // (rows, segments, channels, STATES), or null
              REAL* __restrict__ y, i64 y_row, i64 y_time, i64 y_channel,
              Data* __restrict__ last,         // (rows, channels, STATES); it and y if not REDUCE
              Wide* __restrict__ ends,         // (rows, segments, channels, STATES) where REDUCE,
              bool* __restrict__ kept,         // and whether there is no restart: (rows, segments)
              i64 length, i64 channels, i64 segments, i64 segment)
{
    __shared__ REAL in[WHOLE], out[STEPS * CHANNELS];
    __shared__ int cut[STEPS];
    const i64 groups = (channels + CHANNELS - 1) / CHANNELS;
    const i64 s = blockIdx.x % segments, group = blockIdx.x / segments % groups;
    const i64 row = blockIdx.x / segments / groups, first = group * CHANNELS;
    const i64 begin = s * segment, end = min(length, begin + segment);
    const int here = min((i64)CHANNELS, channels - first);  // channels of this block
    const int lane = threadIdx.x % LANES, channel = threadIdx.x / LANES;
    const bool exists = channel < here;
    const Wide zero = Number<Wide>::of(0);

    Wide x[PER_LANE], by[PER_LANE], into[PER_LANE], onto[PER_LANE];
    bool restarted = false;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = i * LANES + lane;
        const i64 h = first + channel;
        x[i] = by[i] = into[i] = onto[i] = zero;
        if (!exists || n >= STATES) continue;
        by[i] = widened(a[h * a_channel + n * a_state]);
        into[i] = widened(B[h * B_channel + n * B_state]);
        onto[i] = widened(C[h * C_channel + n * C_state]);
        if (REDUCE) continue;
        x[i] = s > 0 ? after[((row * segments + s - 1) * channels + h) * STATES + n]
                     : widened(start[row * start_row + h * start_channel + n * start_state]);
    }
    u += row * u_row + begin * u_time + first * u_channel;
    y += row * y_row + begin * y_time + first * y_channel;

    for (i64 t0 = begin; t0 < end; t0 += STEPS) {
        const int steps = min((i64)STEPS, end - t0);
#pragma unroll
        for (int k = 0; k < SHARE; ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS, c = i % CHANNELS;
            in[i] = t < steps && c < here ? u[t * u_time + c * u_channel] : 0;
        }
        if (RESETS && (int)threadIdx.x < steps)
            cut[threadIdx.x] = !keep[row * keep_row + (t0 + threadIdx.x) * keep_time];
        __syncthreads();
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            if (t >= steps) break;
            const double drive = in[t * CHANNELS + channel];
            if (RESETS && cut[t]) restarted = true;
            double sum = 0;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                if (i * LANES + lane >= STATES) continue;  // an infinite input would make it NaN
                if (RESETS && cut[t]) x[i] = zero;
                x[i] = multiply_add(by[i], x[i], scaled(into[i], drive));
                if (!REDUCE) sum = add_real(onto[i], x[i], sum);
            }
            if (!REDUCE) {
#pragma unroll
                for (int far = 1; far < LANES; far *= 2)
                    sum += __shfl_xor_sync(ALL_LANES, sum, far);
                if (lane == 0) out[t * CHANNELS + channel] = (REAL)sum;
            }
        }
        __syncthreads();
        // Each thread overwrites next what it alone reads here.
#pragma unroll
        for (int k = 0; k < SHARE; ++k) {
            const int i = k * THREADS + threadIdx.x, t = i / CHANNELS, c = i % CHANNELS;
            if (!REDUCE && t < steps && c < here) y[t * y_time + c * y_channel] = out[i];
        }
        u += STEPS * u_time;
        y += STEPS * y_time;
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int n = i * LANES + lane;
        if (!exists || n >= STATES) continue;
        const i64 h = first + channel;
        if (REDUCE) ends[((row * segments + s) * channels + h) * STATES + n] = x[i];
        else if (s == segments - 1) narrow(x[i], &last[(row * channels + h) * STATES + n]);
    }
    if (REDUCE && group == 0 && threadIdx.x == 0) kept[row * segments + s] = !restarted;
}

// y_t = bias + sum_k weight_k u_{t - TAPS + 1 + k} for each channel of each row; before the first
// step stand the TAPS - 1 inputs of ``state``, oldest first, or zeros. The last TAPS - 1 inputs are
// returned for the next call.
//
// A lane is a channel, numbered row by row; WARPS warps follow one another in time, each thread
// ROWS steps with their inputs in registers.
//
// Given before this text: REAL, TAPS, WARPS, ROWS. Strides are in elements, of any sign.

#define PAST (TAPS - 1)

extern "C" __global__ void __launch_bounds__(WARP* WARPS)
short_convolution(const REAL* __restrict__ u, i64 u_row, i64 u_time, i64 u_channel,
                  const REAL* __restrict__ weight, i64 weight_tap, i64 weight_channel,
                  const REAL* __restrict__ bias, i64 bias_channel,
                  const REAL* __restrict__ state, i64 state_row, i64 state_time, i64 state_channel,
                  REAL* __restrict__ y,     // (rows, length, channels)
                  REAL* __restrict__ last,  // (rows, PAST, channels), or null if that is empty
                  i64 rows, i64 length, i64 channels)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const i64 tiles = (length + WARPS * ROWS - 1) / (WARPS * ROWS);
    const i64 number = blockIdx.x / tiles * WARP + lane, tile = blockIdx.x % tiles;
    const i64 first = (tile * WARPS + warp) * ROWS;
    if (number >= rows * channels || first >= length) return;
    const i64 row = number / channels, c = number % channels;
    u += row * u_row + c * u_channel;
    if (state) state += row * state_row + c * state_channel;
    const auto input = [&](i64 t) -> REAL {
        if (t >= 0) return u[t * u_time];
        return state ? state[(t + PAST) * state_time] : 0;
    };

    REAL x[PAST + ROWS], w[TAPS];
#pragma unroll
    for (int i = 0; i < PAST + ROWS; ++i) {
        const i64 t = first - PAST + i;
        x[i] = t < length ? input(t) : 0;
    }
#pragma unroll
    for (int k = 0; k < TAPS; ++k) w[k] = weight[k * weight_tap + c * weight_channel];
    const REAL constant = bias ? bias[c * bias_channel] : 0;
    y += (row * length + first) * channels + c;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        REAL sum = 0;
#pragma unroll
        for (int k = 0; k < TAPS; ++k) sum = multiply_add(w[k], x[i + k], sum);
        if (first + i < length) *y = sum + constant;
        y += channels;
    }
    if (first > 0) return;
    for (int i = 0; i < PAST; ++i) last[(row * PAST + i) * channels + c] = input(length - PAST + i);
}

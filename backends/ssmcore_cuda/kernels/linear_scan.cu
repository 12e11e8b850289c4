// h_t = a_t h_{t-1} + b_t for many channels at once; h_{t-1} is taken as 0 where not keep_t.
//
// A channel is one of rows x width recurrences, numbered row by row; a block runs 32 of them, one
// a lane, and has WARPS warps one after the other in time, each thread ROWS steps in registers.
// What a stretch of steps does to a state is a map h -> a h + b (b alone where ``cut``: selected,
// so that neither inf nor NaN crosses a restart). States and maps are carried in double precision
// whatever the data: a constant input otherwise drifts by half an ulp a step.
//
// Where the channels are too few to fill a device the time is cut into segments: linear_reduce
// returns the map of each, linear_scan over those maps the state before each, and linear_scan
// over the data starts from it. All sums have a fixed order.
//
// Given before this text: REAL, IS_COMPLEX, VARIES (a has a time axis), RESETS (there are
// restarts), SHIFTED (what a_t and a restart do comes after step t: h_t = a_{t-1} h_{t-1} + b_t, and
// h_0 = start + b_0), PACKED (see below), WARPS, ROWS. Strides are in elements, of any sign; time
// runs with its stride.

#if IS_COMPLEX
typedef Complex<REAL> Data;
typedef Complex<double> Wide;
#else
typedef REAL Data;
typedef double Wide;
#endif

#define TILE ((i64)WARPS * ROWS)

struct Map {
    Wide a, b;
    int cut;
};

__device__ __forceinline__ Wide moved(const Map& map, Wide h) {
    return map.cut ? map.b : multiply_add(map.a, h, map.b);
}

// first, then second.
__device__ __forceinline__ Map composed(const Map& first, const Map& second) {
    const Wide zero = Number<Wide>::of(0);
    return Map{second.cut ? second.a : multiply_add(second.a, first.a, zero),
               moved(second, first.b), first.cut | second.cut};
}

// One step as it lies in memory.
struct Step {
    Data a, b;
    int cut;

    __device__ __forceinline__ Map map() const { return Map{widened(a), widened(b), cut}; }
};

__device__ __forceinline__ Step no_step() {
    return Step{Number<Data>::of(1), Number<Data>::of(0), 0};
}

// The coefficients of one channel.
struct Channel {
    const Data *a, *b;
    const bool* keep;
    i64 a_time, b_time, keep_time;
    Data constant;

    __device__ __forceinline__ Channel(const Data* a, const Data* b, const bool* keep, i64 a_time,
                                       i64 b_time, i64 keep_time)
        : a(a), b(b), keep(keep), a_time(a_time), b_time(b_time), keep_time(keep_time),
          constant(VARIES ? Number<Data>::of(0) : *a) {
        if (SHIFTED && VARIES) this->a -= a_time;
        if (SHIFTED && RESETS) this->keep -= keep_time;
    }
    __device__ __forceinline__ void forward(i64 steps) {
        if (VARIES) a += steps * a_time;
        b += steps * b_time;
        if (RESETS) keep += steps * keep_time;
    }
    // The step it stands at, which is the first of all or not.
    __device__ __forceinline__ Step read(bool first) const {
        if (SHIFTED && first) return Step{Number<Data>::of(1), *b, 0};
        return Step{VARIES ? *a : constant, *b, RESETS ? !*keep : 0};
    }
};

#if PACKED
// Strides and sizes of arrays that lie without gaps, for callers that hand over arrays only: rows,
// length, width, segments, segment, rows of a, rows of keep, and whether time runs backwards.
#define UNPACK                                                                                   \
    const i64 rows = sizes[0], length = sizes[1], width = sizes[2];                              \
    const i64 segments = sizes[3], segment = sizes[4];                                           \
    const i64 way = sizes[7] ? -1 : 1, edge = sizes[7] ? length - 1 : 0;                         \
    const i64 a_row = sizes[5] == 1 ? 0 : (VARIES ? length : 1) * width, a_width = 1;            \
    const i64 a_time = VARIES ? way * width : 0, b_row = length * width, b_width = 1;            \
    const i64 b_time = way * width, keep_row = sizes[6] == 1 ? 0 : length, keep_time = way;      \
    if (VARIES) a += edge * width;                                                               \
    if (RESETS) keep += edge;                                                                    \
    b += edge * width;
#endif

#if PACKED
extern "C" __global__ void __launch_bounds__(WARP* WARPS, 3)
linear_scan(const Data* __restrict__ a, const Data* __restrict__ b, const bool* __restrict__ keep,
            const Data* __restrict__ start, const Wide* __restrict__ after,
            const int* __restrict__ sizes, Data* __restrict__ h)
{
    UNPACK
    const i64 start_row = width, start_width = 1;
    const i64 h_row = b_row, h_time = b_time, h_width = 1;
    h += edge * width;
#else
extern "C" __global__ void __launch_bounds__(WARP* WARPS, 3)
linear_scan(const Data* __restrict__ a, i64 a_row, i64 a_time, i64 a_width,
            const Data* __restrict__ b, i64 b_row, i64 b_time, i64 b_width,
            const bool* __restrict__ keep, i64 keep_row, i64 keep_time,
            const Data* __restrict__ start, i64 start_row, i64 start_width,
            const Wide* __restrict__ after,  // (rows, segments, width), or null
            Data* __restrict__ h, i64 h_row, i64 h_time, i64 h_width,
            i64 rows, i64 length, i64 width, i64 segments, i64 segment)
{
#endif
    __shared__ Wide map_a[WARPS][WARP], map_b[WARPS][WARP], state[WARP];
    __shared__ int map_cut[WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const i64 number = blockIdx.x / segments * WARP + lane, s = blockIdx.x % segments;
    const bool exists = number < rows * width;
    const i64 row = exists ? number / width : 0, p = exists ? number % width : 0;
    const i64 end = min(length, (s + 1) * segment);

    Channel channel = {a + row * a_row + p * a_width, b + row * b_row + p * b_width,
                       RESETS ? keep + row * keep_row : keep, a_time, b_time, keep_time};
    channel.forward(s * segment + (i64)warp * ROWS);
    h += row * h_row + p * h_width + (s * segment + (i64)warp * ROWS) * h_time;

    if (warp == 0) {
        state[lane] = s > 0 ? after[(row * segments + s - 1) * width + p]
                            : widened(start[row * start_row + p * start_width]);
    }
    for (i64 t0 = s * segment; t0 < end; t0 += TILE) {
        const i64 first = t0 + (i64)warp * ROWS;
        Step step[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            step[i] = exists && first + i < end ? channel.read(first + i == 0) : no_step();
            channel.forward(1);
        }
        channel.forward(TILE - ROWS);
        Map whole = step[0].map();
#pragma unroll
        for (int i = 1; i < ROWS; ++i) whole = composed(whole, step[i].map());
        map_a[warp][lane] = whole.a;
        map_b[warp][lane] = whole.b;
        map_cut[warp][lane] = whole.cut;
        __syncthreads();
        Wide x = state[lane];
        for (int w = 0; w < warp; ++w)
            x = moved(Map{map_a[w][lane], map_b[w][lane], map_cut[w][lane]}, x);
        __syncthreads();  // all have read what the last warp and the next tile overwrite
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            x = moved(step[i].map(), x);
            if (exists && first + i < end) narrow(x, h);
            h += h_time;
        }
        h += (TILE - ROWS) * h_time;
        if (warp == WARPS - 1) state[lane] = x;
    }
}

// The map of each segment: (rows, segments, width); whether it has no restart: (rows, segments).
#if PACKED
extern "C" __global__ void __launch_bounds__(WARP* WARPS, 3)
linear_reduce(const Data* __restrict__ a, const Data* __restrict__ b,
              const bool* __restrict__ keep, const int* __restrict__ sizes,
              Wide* __restrict__ out_a, Wide* __restrict__ out_b, bool* __restrict__ out_keep)
{
    UNPACK
#else
extern "C" __global__ void __launch_bounds__(WARP* WARPS, 3)
linear_reduce(const Data* __restrict__ a, i64 a_row, i64 a_time, i64 a_width,
              const Data* __restrict__ b, i64 b_row, i64 b_time, i64 b_width,
              const bool* __restrict__ keep, i64 keep_row, i64 keep_time,
              Wide* __restrict__ out_a, Wide* __restrict__ out_b, bool* __restrict__ out_keep,
              i64 rows, i64 length, i64 width, i64 segments, i64 segment)
{
#endif
    __shared__ Wide map_a[WARPS][WARP], map_b[WARPS][WARP];
    __shared__ int map_cut[WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const i64 number = blockIdx.x / segments * WARP + lane, s = blockIdx.x % segments;
    const bool exists = number < rows * width;
    const i64 row = exists ? number / width : 0, p = exists ? number % width : 0;
    const i64 share = (segment + WARPS - 1) / WARPS, first = s * segment + warp * share;
    const i64 end = min(min(length, (s + 1) * segment), first + share);

    Channel channel = {a + row * a_row + p * a_width, b + row * b_row + p * b_width,
                       RESETS ? keep + row * keep_row : keep, a_time, b_time, keep_time};
    channel.forward(first);
    Map whole = no_step().map();
    if (exists) {
#pragma unroll 4
        for (i64 t = first; t < end; ++t) {
            whole = composed(whole, channel.read(t == 0).map());
            channel.forward(1);
        }
    }
    map_a[warp][lane] = whole.a;
    map_b[warp][lane] = whole.b;
    map_cut[warp][lane] = whole.cut;
    __syncthreads();
    if (warp > 0 || !exists) return;
#pragma unroll
    for (int w = 1; w < WARPS; ++w)
        whole = composed(whole, Map{map_a[w][lane], map_b[w][lane], map_cut[w][lane]});
    const i64 at = (row * segments + s) * width + p;
    out_a[at] = whole.a;
    out_b[at] = whole.b;
    if (p == 0) out_keep[row * segments + s] = !whole.cut;
}

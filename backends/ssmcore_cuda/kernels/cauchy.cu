// The generating function of H diagonal-plus-low-rank systems at F nodes, low rank taken out:
//
//   r_ij = sum_n pairs_n,ij / (one - half pole_n) + conj(pairs_n,ij) / (one - half conj(pole_n)),
//   out = r_00 - half r_01 (I + half r_11)^-1 r_10,
//
// the inverse one rank at a time (Sherman-Morrison: every pivot has a real part of at least 1).
// A thread is a node of one system, the r_ij in its registers; poles and pairs come to shared
// memory NEAR at a time. No array of F x poles is ever written.
//
// Given before this text: REAL, RANK, THREADS, NEAR. Strides are in elements, of any sign.

typedef Complex<REAL> Value;

#define SIZE (RANK + 1)

__device__ __forceinline__ Value times(Value x, Value y) {
    return multiply_add(x, y, Value{0, 0});
}
__device__ __forceinline__ Value inverse(Value z) {
    const REAL scale = 1 / multiply_add(z.re, z.re, z.im * z.im);
    return Value{z.re * scale, -z.im * scale};
}

extern "C" __global__ void __launch_bounds__(THREADS, 3)
cauchy(const Value* __restrict__ one, i64 one_node,    // (nodes)
       const Value* __restrict__ half, i64 half_node,  // (nodes)
       const Value* __restrict__ poles, i64 poles_system, i64 poles_state,
       const Value* __restrict__ pairs,  // (systems, states, SIZE, SIZE)
       i64 pairs_system, i64 pairs_state, i64 pairs_row, i64 pairs_column,
       Value* __restrict__ out,  // (systems, nodes)
       i64 nodes, i64 states)
{
    __shared__ Value near_poles[NEAR], near_pairs[NEAR][SIZE * SIZE];
    const i64 groups = (nodes + THREADS - 1) / THREADS;
    const i64 system = blockIdx.x / groups, node = blockIdx.x % groups * THREADS + threadIdx.x;
    const bool exists = node < nodes;
    const Value z = exists ? one[node * one_node] : Value{1, 0};
    const Value w = exists ? half[node * half_node] : Value{0, 0};
    poles += system * poles_system;
    pairs += system * pairs_system;

    Value r[SIZE][SIZE];
#pragma unroll
    for (int i = 0; i < SIZE * SIZE; ++i) r[i / SIZE][i % SIZE] = Value{0, 0};
    for (i64 n0 = 0; n0 < states; n0 += NEAR) {
        const int count = min((i64)NEAR, states - n0);
        for (int i = threadIdx.x; i < count; i += THREADS)
            near_poles[i] = poles[(n0 + i) * poles_state];
        for (int i = threadIdx.x; i < count * SIZE * SIZE; i += THREADS) {
            const int n = i / (SIZE * SIZE), k = i % (SIZE * SIZE);
            near_pairs[n][k] = pairs[(n0 + n) * pairs_state + k / SIZE * pairs_row +
                                     k % SIZE * pairs_column];
        }
        __syncthreads();
#pragma unroll 1
        for (int n = 0; n < count; ++n) {
            const Value pole = near_poles[n];
            const REAL straight = w.re * pole.re, crossed = w.im * pole.im;
            const REAL up = w.re * pole.im, down = w.im * pole.re;
            const Value x = inverse(Value{z.re - (straight - crossed), z.im - (down + up)});
            const Value twin = inverse(Value{z.re - (straight + crossed), z.im - (down - up)});
            const Value sum = {x.re + twin.re, x.im + twin.im};
            const Value rest = {twin.im - x.im, x.re - twin.re};  // i (x - twin)
#pragma unroll
            for (int k = 0; k < SIZE * SIZE; ++k) {
                const Value pair = near_pairs[n][k];
                Value& to = r[k / SIZE][k % SIZE];
                to.re = multiply_add(pair.re, sum.re, multiply_add(pair.im, rest.re, to.re));
                to.im = multiply_add(pair.re, sum.im, multiply_add(pair.im, rest.im, to.im));
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int k = RANK; k > 0; --k) {
        const Value pivot = multiply_add(w, r[k][k], Value{1, 0});
        const Value scale = times(w, inverse(pivot));
#pragma unroll
        for (int i = 0; i < k; ++i) {
            const Value row = times(scale, r[i][k]);
#pragma unroll
            for (int j = 0; j < k; ++j)
                r[i][j] = multiply_add(Value{-row.re, -row.im}, r[k][j], r[i][j]);
        }
    }
    if (exists) out[system * nodes + node] = r[0][0];
}

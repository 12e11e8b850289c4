// CUDA C on the CPU, for tests: what a kernel may use, and how Python launches it.
//
// One fiber per CUDA thread, one block at a time, in an order that the test chooses. Shared memory
// is filled with NaN before each block. A barrier or shuffle that not all threads reach is an
// error. What is missing here a kernel may not use: it will not compile.
#pragma once
#include <cstdint>
#include <type_traits>
#include <utility>

// Of <cmath>, whose text takes longer to compile than all kernels.
extern "C" {
float fmaf(float, float, float);
float fminf(float, float);
float fmaxf(float, float);
double fma(double, double, double);
double fmin(double, double);
double fmax(double, double);
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static __attribute__((section("cushim_shared")))

struct uint3 {
    unsigned x, y, z;
};

namespace cushim __attribute__((visibility("default"))) {
struct Launch {
    unsigned blocks, threads;
    int order;  // of the threads: 0 forward, 1 backward, otherwise the seed of a random one
};
struct Parameter {
    int size, pointer, output;
};
extern uint3 thread_index, block_index, block_size, grid_size;
void wait_for_block();
uint64_t exchange(unsigned lanes, uint64_t value, int source);
int lane();
// Run ``body(arguments)`` once for each thread of each block; 0, or 1 where threads wait forever.
int run(void (*body)(void**), void** arguments, Launch, char* shared, char* shared_end);

template <class... P, std::size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<P>*>(arguments[I])...);
}
template <auto kernel> struct Kernel;
template <class... P, void (*kernel)(P...)> struct Kernel<kernel> {
    static void body(void** arguments) {
        call(kernel, arguments, std::index_sequence_for<P...>());
    }
    // Each parameter as Python sees it: bytes, of what it points to if it does, and to what end.
    template <class T> static Parameter parameter() {
        typedef std::remove_pointer_t<T> Target;
        constexpr bool pointer = std::is_pointer_v<T>;
        return {sizeof(Target), pointer, pointer && !std::is_const_v<Target>};
    }
    static int parameters(Parameter* out) {
        int count = 0;
        ((out[count++] = parameter<P>()), ...);
        return count;
    }
};
}  // namespace cushim

// Shared memory of the kernels in this library; no such section if none uses any.
extern "C" char __start_cushim_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cushim_shared[] __attribute__((weak, visibility("hidden")));

#define CUSHIM_EXPORT(name)                                                                     \
    extern "C" __attribute__((visibility("default"))) int parameters_##name(                     \
        cushim::Parameter* out) {                                                               \
        return cushim::Kernel<&name>::parameters(out);                                          \
    }                                                                                           \
    extern "C" __attribute__((visibility("default"))) int launch_##name(                        \
        void** arguments, cushim::Launch launch) {                                              \
        return cushim::run(cushim::Kernel<&name>::body, arguments, launch,                      \
                           __start_cushim_shared, __stop_cushim_shared);                        \
    }

#define threadIdx cushim::thread_index
#define blockIdx cushim::block_index
#define blockDim cushim::block_size
#define gridDim cushim::grid_size

inline void __syncthreads() { cushim::wait_for_block(); }

template <class T> T __shfl_xor_sync(unsigned lanes, T value, int mask) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = cushim::exchange(lanes, bits, cushim::lane() ^ mask);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T> T min(T x, T y) { return y < x ? y : x; }
template <class T> T max(T x, T y) { return x < y ? y : x; }
template <class To, class From> To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    __builtin_memcpy(&bits, &x, sizeof x);
    return bits;
}
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return same_bits<double>(x); }

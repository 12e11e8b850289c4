// Real and complex numbers of one precision, and what the kernels do with them.
//
// Given before this text: REAL (float or double) and, where numbers may be complex, IS_COMPLEX.

typedef long long i64;

// Lanes of a warp that are written out in the kernels' layouts.
#define WARP 32
#define ALL_LANES 0xffffffffu

template <class R> struct Complex {
    R re, im;
};

__device__ __forceinline__ double widened(double x) { return x; }
__device__ __forceinline__ double widened(float x) { return x; }
template <class R> __device__ __forceinline__ Complex<double> widened(Complex<R> x) {
    return Complex<double>{x.re, x.im};
}

__device__ __forceinline__ void narrow(double x, double* to) { *to = x; }
__device__ __forceinline__ void narrow(double x, float* to) { *to = (float)x; }
template <class R> __device__ __forceinline__ void narrow(Complex<double> x, Complex<R>* to) {
    *to = Complex<R>{(R)x.re, (R)x.im};
}

// a x + b
__device__ __forceinline__ float multiply_add(float a, float x, float b) { return fmaf(a, x, b); }
__device__ __forceinline__ double multiply_add(double a, double x, double b) {
    return fma(a, x, b);
}
template <class R>
__device__ __forceinline__ Complex<R> multiply_add(Complex<R> a, Complex<R> x, Complex<R> b) {
    return Complex<R>{multiply_add(a.re, x.re, multiply_add(-a.im, x.im, b.re)),
                      multiply_add(a.re, x.im, multiply_add(a.im, x.re, b.im))};
}

// The whole number n as a T.
template <class T> struct Number {
    static __device__ __forceinline__ T of(int n) { return (T)n; }
};
template <class R> struct Number<Complex<R>> {
    static __device__ __forceinline__ Complex<R> of(int n) { return Complex<R>{(R)n, (R)0}; }
};

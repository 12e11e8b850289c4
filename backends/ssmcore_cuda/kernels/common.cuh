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

// exp(x) = scale (1 + rest): a power of two, and what is left to one rounding near x = 0, where a
// rounded exp(x) would be off by half an ulp at every step. Minimax polynomials on
// |f| <= ln(2) / 2, within 3.3e-9 and 3.9e-18. 0 where exp(x) is no normal number any more, inf
// where it overflows. NaN is not kept.
template <class R> struct Power {
    R scale, rest;
};

__device__ __forceinline__ Power<float> power(float x) {
    const float magic = 12583039.f;  // 1.5 2^23 + 127: rounds to an integer, in the lowest bits
    x = fminf(fmaxf(x, -88.1f), 89.f);
    const float t = fmaf(x, 1.4426950408889634f, magic);
    const float f = fmaf(magic - t, 0.6931471805599453f, x);
    float r = fmaf(f, 0.00139500736258924f, 0.00836871936917305f);
    r = fmaf(f, r, 0.04166621342301369f);
    r = fmaf(f, r, 0.1666652113199234f);
    r = fmaf(f, r, 0.5f);
    return Power<float>{__int_as_float(__float_as_int(t) << 23), fmaf(f * f, r, f)};
}
__device__ __forceinline__ Power<double> power(double x) {
    const double magic = 6755399441056767.;  // 1.5 2^52 + 1023
    x = fmin(fmax(x, -709.2), 710.);
    const double t = fma(x, 1.4426950408889634, magic);
    const double f = fma(magic - t, 0.6931471805599453, x);
    double r = fma(f, 2.5115892387797495e-08, 2.763010656110537e-07);
    r = fma(f, r, 2.75572229681831e-06);
    r = fma(f, r, 2.4801493603679172e-05);
    r = fma(f, r, 0.00019841269909261265);
    r = fma(f, r, 0.0013888888943003677);
    r = fma(f, r, 0.008333333333311373);
    r = fma(f, r, 0.0416666666665333);
    r = fma(f, r, 0.1666666666666669);
    r = fma(f, r, 0.500000000000001);
    return Power<double>{__longlong_as_double(__double_as_longlong(t) << 52), fma(f * f, r, f)};
}

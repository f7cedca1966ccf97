/* Compiles BODY for each set of instructions, which NAME() gives names in it a suffix of; PICK() chooses among them. */

#if defined(__x86_64__) && defined(__GNUC__)
#define AVX2 "avx2,fma,bmi,bmi2"
#define AVX512 AVX2 ",avx512f,avx512bw,avx512vl,avx512dq"
#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#if defined(__clang__)
#define BEGIN_FOR(set, more) PRAGMA(clang attribute push(__attribute__((target(set))), apply_to = function))
#define END_FOR PRAGMA(clang attribute pop)
#else
#define BEGIN_FOR(set, more) PRAGMA(GCC push_options) PRAGMA(GCC target(set more))
#define END_FOR PRAGMA(GCC pop_options)
#endif
BEGIN_FOR(AVX512, ",prefer-vector-width=512")
#define NAME(x) x##_avx512
#include "numbers.h"
#include BODY
#undef NAME
END_FOR
BEGIN_FOR(AVX2, "")
#define NAME(x) x##_avx2
#include "numbers.h"
#include BODY
#undef NAME
END_FOR
#else
#define NAME(x) x##_plain
#include "numbers.h"
#include BODY
#undef NAME
#endif

/* Which kernels these are, and what of this processor they use. */

#include "kernels.h"

/* As in library.py, which uses no other; tests/kernels/test_library.py says what it must be. */
#define VERSION 116817813
int nasproxy_version(void) { return VERSION; }

#if defined(__x86_64__) && defined(__GNUC__)
int nasproxy_has_avx512;

/* For tests: whether to do without AVX-512. */
void nasproxy_narrower(int yes)
{
    nasproxy_has_avx512 = !yes && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* Whether this processor is one that the kernels are for. It is asked first. */
int nasproxy_supported(void)
{
    __builtin_cpu_init();
    nasproxy_narrower(0);
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
#else
void nasproxy_narrower(int yes) { (void)yes; }
int nasproxy_supported(void) { return 1; }
#endif

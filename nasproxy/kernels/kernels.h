/* What all kernels share: loops, parts of a work that threads take, and processors. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* A loop of which no turn needs what another one wrote, which a compiler cannot know of pointers. */
#if defined(__clang__)
#define EACH(i, count) _Pragma("clang loop vectorize(assume_safety)") for (int64_t i = 0; i < (count); i++)
#else
#define EACH(i, count) _Pragma("GCC ivdep") for (int64_t i = 0; i < (count); i++)
#endif

/* At the beginning of a cache line, as vectors of 16 numbers then never reach into a second. */
INLINE float *room_for(int64_t numbers) { return aligned_alloc(64, ((size_t)numbers * sizeof(float) + 63) / 64 * 64); }

/* GOMP_parallel of the OpenMP that torch runs on: calls a function in each thread of a team. A team of one's own would
   wait for processors that torch's threads, which look out for more work for a while, still hold. */
typedef void (*team)(void (*function)(void *), void *given, unsigned threads, unsigned flags);

/* Parts of a work, each of `bytes`, and which is to be done next. `modes` are the caller's of floating-point numbers:
   other threads may have begun before denormal ones were to be flushed, and any of them takes any part. */
struct parts {
    void (*function)(void *part);
    char *works;
    int64_t bytes, count, next;
    unsigned modes;
};

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define GET_MODES() _mm_getcsr()
#define SET_MODES(modes) _mm_setcsr(modes)
#else
#define GET_MODES() 0
#define SET_MODES(modes) (void)(modes)
#endif

/* What each thread of a team does, however many there are. */
static void do_parts(void *given)
{
    struct parts *parts = given;
    int64_t part;
    unsigned own = GET_MODES();
    SET_MODES(parts->modes);
    while ((part = __atomic_fetch_add(&parts->next, 1, __ATOMIC_RELAXED)) < parts->count)
        parts->function(parts->works + part * parts->bytes);
    SET_MODES(own);
}

/* Does them in all of torch's threads, as OpenMP would end those that a smaller team leaves out; one part in this one. */
INLINE void share_parts(team team, int32_t threads, struct parts parts)
{
    parts.modes = GET_MODES();
    if (team && parts.count > 1)
        team(do_parts, &parts, (unsigned)threads, 0);
    else
        do_parts(&parts);
}

#if defined(__x86_64__) && defined(__GNUC__)
extern int nasproxy_has_avx512;
#define PICK(x) (nasproxy_has_avx512 ? x##_avx512 : x##_avx2)
#else
#define PICK(x) x##_plain
#endif

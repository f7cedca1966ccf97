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

/* What each part's work begins with: which images, or rows, it takes, and whether memory was not to be had. */
struct part {
    int64_t first, last;
    int failed;
};

/* As many works like `whole` as `parts` wants, but no more than there are `units` to share, or one without a team. */
INLINE struct parts split(void (*function)(void *), const void *whole, int64_t bytes, team team, int64_t parts,
    int64_t units)
{
    int64_t count = parts < units ? parts : units;
    if (count < 1 || !team) count = 1;
    char *works = malloc((size_t)(count * bytes));
    for (int64_t i = 0; works && i < count; i++) {
        memcpy(works + i * bytes, whole, (size_t)bytes);
        struct part *part = (struct part *)(works + i * bytes);
        part->first = units * i / count;
        part->last = units * (i + 1) / count;
    }
    return (struct parts){.function = function, .works = works, .bytes = bytes, .count = count};
}

/* Does them in all of torch's threads, as OpenMP would end those that a smaller team leaves out; one part in this one.
   Returns whether any failed. */
INLINE int share_parts(team team, int32_t threads, struct parts parts)
{
    int failed = 0;
    parts.modes = GET_MODES();
    if (parts.count > 1)
        team(do_parts, &parts, (unsigned)threads, 0);
    else
        do_parts(&parts);
    for (int64_t i = 0; i < parts.count; i++) failed |= ((struct part *)(parts.works + i * parts.bytes))->failed;
    return failed;
}

#if defined(__x86_64__) && defined(__GNUC__)
extern int nasproxy_has_avx512;
#define PICK(x) (nasproxy_has_avx512 ? x##_avx512 : x##_avx2)
#else
#define PICK(x) x##_plain
#endif

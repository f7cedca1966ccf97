/* What follows a convolution, in one go: normalisation, activation and 2x2 pooling, forward and back.

   torch computes them one after another, each from memory to memory, and they take as long as the convolutions where a
   processor multiplies matrices fast. Here maps are read and written once each way (batch normalisation: twice), and
   all in between stays in a core's caches, in float32: maps go through in tiles.

   Maps are (images, height, width, channels) in memory, numbers of float32 or of bfloat16. Threads share the images. A
   function returns 0, or -1 if memory was not to be had. fused.py says what is computed, and library.py loads this. */

#include <math.h>

#include "kernels.h"

#define LEAK 0.01f

enum { SIGMOID, RELU, LEAKY_RELU };
enum { NONE, MAX, AVERAGE };

/* As library.py's Tail. Groups of channels are normalised together in each image; 0: statistics are given. */
struct tail {
    team team;
    int64_t images, height, width, channels, groups;
    int32_t activation, pooling, narrow, per_pixel, threads, parts;
    float eps;
};

int nasproxy_tail_bytes(void) { return (int)sizeof(struct tail); }

/* A few pixels of an image, one or, as windows are two pixels high, two rows of them. A tile's numbers fit in a core's
   first cache several times. */
struct tile {
    int64_t top, left, rows, columns;
};

#define TILE 1024

/* An even number of columns, if there are two. */
static int64_t tile_columns(const struct tail *tail)
{
    int64_t columns = TILE / 2 / tail->channels / 2 * 2;
    if (columns < 2) columns = 2;
    return columns < tail->width ? columns : tail->width;
}

/* Room for a tile's numbers and a few more: a processor takes loads for stores that are a multiple of 4 KiB away. */
static int64_t tile_numbers(const struct tail *tail) { return 2 * tile_columns(tail) * tail->channels + 80; }

static struct tile tile_at(const struct tail *tail, int64_t top, int64_t left)
{
    int64_t rows = tail->pooling == NONE ? 1 : 2, columns = tile_columns(tail);
    if (rows > tail->height - top) rows = tail->height - top;
    if (columns > tail->width - left) columns = tail->width - left;
    return (struct tile){.top = top, .left = left, .rows = rows, .columns = columns};
}

static struct tile first_tile(const struct tail *tail) { return tile_at(tail, 0, 0); }

/* One without rows comes after the last. */
static struct tile next_tile(const struct tail *tail, struct tile tile)
{
    int64_t left = tile.left + tile.columns;
    return left < tail->width ? tile_at(tail, tile.top, left) : tile_at(tail, tile.top + tile.rows, 0);
}

#define BODY "maps.h"
#include "each_processor.h"

/* What a function is given, and which images of it a thread takes. */
struct work {
    struct part part;
    const struct tail *tail;
    const void *maps, *results, *on_results;
    const float *scale, *shift;
    float *mean, *rate, *sum, *along, *on_scale, *on_shift;
    void *to;
};

static int64_t map_bytes(const struct tail *tail)
{
    return tail->height * tail->width * tail->channels * (tail->narrow ? 2 : 4);
}

static int64_t result_bytes(const struct tail *tail)
{
    if (tail->pooling == NONE) return map_bytes(tail);
    return (tail->height / 2) * (tail->width / 2) * tail->channels * (tail->narrow ? 2 : 4);
}

static void moments_work(void *part)
{
    struct work *work = part;
    int64_t channels = work->tail->channels;
    for (int64_t n = work->part.first; n < work->part.last; n++)
        PICK(moments)((const char *)work->maps + n * map_bytes(work->tail), work->tail, work->mean + n * channels,
            work->rate + n * channels);
}

static void forward_work(void *part)
{
    struct work *work = part;
    const struct tail *tail = work->tail;
    int64_t step = tail->groups ? tail->channels : 0;
    float *room = room_for(2 * tile_numbers(tail));
    if ((work->part.failed = !room)) return;
    for (int64_t n = work->part.first; n < work->part.last; n++)
        PICK(forward_image)(tail, (const char *)work->maps + n * map_bytes(tail), work->mean + n * step,
            work->rate + n * step, work->scale, work->shift, (char *)work->to + n * result_bytes(tail), room);
    free(room);
}

static void sums_work(void *part)
{
    struct work *work = part;
    const struct tail *tail = work->tail;
    float *room = room_for(3 * tile_numbers(tail));
    if ((work->part.failed = !room)) return;
    for (int64_t n = work->part.first; n < work->part.last; n++)
        PICK(sum_image)(tail, (const char *)work->on_results + n * result_bytes(tail),
            (const char *)work->maps + n * map_bytes(tail), (const char *)work->results + n * result_bytes(tail),
            work->mean, work->rate, work->scale, work->shift, work->sum + n * tail->channels,
            work->along + n * tail->channels, room);
    free(room);
}

static void backward_work(void *part)
{
    struct work *work = part;
    const struct tail *tail = work->tail;
    int64_t channels = tail->channels, pixels = tail->height * tail->width;
    int64_t numbers = (tail->groups ? pixels + 2 : 0) * channels + 3 * tile_numbers(tail);
    float *room = room_for(numbers);
    if ((work->part.failed = !room)) return;
    for (int64_t n = work->part.first; n < work->part.last; n++) {
        const char *on_results = (const char *)work->on_results + n * result_bytes(tail);
        const char *maps = (const char *)work->maps + n * map_bytes(tail);
        const char *results = (const char *)work->results + n * result_bytes(tail);
        char *to = (char *)work->to + n * map_bytes(tail);
        if (tail->groups)
            PICK(whole_image)(tail, on_results, maps, results, work->mean + n * channels, work->rate + n * channels,
                work->scale, work->shift, work->sum + n * channels, work->along + n * channels, work->on_scale,
                work->on_shift, to, room);
        else
            PICK(known_image)(tail, on_results, maps, results, work->mean, work->rate, work->scale, work->shift,
                work->sum, work->along, to, room);
    }
    free(room);
}

/* Shares images among threads. Each part adds what is per pixel to numbers of its own, which are then added up. */
static int share(void (*function)(void *), struct work whole)
{
    const struct tail *tail = whole.tail;
    struct parts parts = split(function, &whole, sizeof whole, tail->team, tail->parts, tail->images);
    struct work *works = (struct work *)parts.works;
    int64_t numbers = whole.on_scale ? tail->height * tail->width * tail->channels : 0;
    float *own = numbers ? calloc((size_t)(2 * numbers * parts.count), sizeof *own) : NULL;
    if (!works || (numbers && !own)) {
        free(works), free(own);
        return -1;
    }
    for (int64_t part = 0; numbers && part < parts.count; part++) {
        works[part].on_scale = own + 2 * numbers * part;
        works[part].on_shift = own + 2 * numbers * part + numbers;
    }
    int failed = share_parts(tail->team, tail->threads, parts);
    for (int64_t part = 0; part < parts.count; part++)
        for (int64_t i = 0; i < numbers; i++) {
            whole.on_scale[i] += works[part].on_scale[i];
            whole.on_shift[i] += works[part].on_shift[i];
        }
    free(works), free(own);
    return failed ? -1 : 0;
}

/* Mean and sum of squared deviations of each channel of each image: (images, channels). */
int nasproxy_moments(const struct tail *tail, const void *maps, float *mean, float *squares)
{
    return share(moments_work, (struct work){.tail = tail, .maps = maps, .mean = mean, .rate = squares});
}

/* The results. With groups, mean and rate are (images, channels) and written; else they are of a channel, and read. */
int nasproxy_forward(const struct tail *tail, const void *maps, float *mean, float *rate, const float *scale,
    const float *shift, void *results)
{
    return share(forward_work, (struct work){.tail = tail, .maps = maps, .mean = mean, .rate = rate, .scale = scale,
        .shift = shift, .to = results});
}

/* Sums over pixels of the gradient on what the activation takes, and of its product with normalised maps, for given
   statistics: (images, channels). */
int nasproxy_sums(const struct tail *tail, const void *on_results, const void *maps, const void *results, float *mean,
    float *rate, const float *scale, const float *shift, float *sum, float *along)
{
    return share(sums_work, (struct work){.tail = tail, .on_results = on_results, .maps = maps, .results = results,
        .mean = mean, .rate = rate, .scale = scale, .shift = shift, .sum = sum, .along = along});
}

/* The gradient on maps. With groups, the sums of nasproxy_sums are written too, and, per pixel, the gradients of scale
   and shift added to what is there; else sum and along are the means of each channel, times its scale, and read. They
   are NULL where the statistics do not depend on the maps. */
int nasproxy_backward(const struct tail *tail, const void *on_results, const void *maps, const void *results,
    float *mean, float *rate, const float *scale, const float *shift, float *sum, float *along, float *on_scale,
    float *on_shift, void *on_maps)
{
    return share(backward_work, (struct work){.tail = tail, .on_results = on_results, .maps = maps, .results = results,
        .mean = mean, .rate = rate, .scale = scale, .shift = shift, .sum = sum, .along = along, .on_scale = on_scale,
        .on_shift = on_shift, .to = on_maps});
}

/* The transforms of Winograd's convolution F(4x4, 3x3), each from memory to memory once: winograd.py says what they are.

   torch would take four passes over memory for each, of products with matrices of 6x6, which cost as much as the
   convolution's own products.

   Maps are (images, height, width, channels) in memory, numbers of float32 or of bfloat16, and 4x4 pixels make a tile.
   A tile's numbers in the transformed domain lie `apart` from one another: (36, tiles, channels). Threads share
   rows of tiles. A function returns 0, or -1 if memory was not to be had. */

#include "kernels.h"

enum { OUT = 4, IN = 6, BLOCK = 32 };

/* The points; see winograd.py. */
#define P 0.75f
#define Q 1.5f
#define PP (P * P)
#define QQ (Q * Q)

struct six {
    float a, b, c, d, e, f;
};

struct four {
    float a, b, c, d;
};

/* As library.py's Tiled. */
struct tiled {
    team team;
    int64_t images, height, width, channels, down, across, apart;
    int32_t narrow, threads, parts;
};

int nasproxy_tiled_bytes(void) { return (int)sizeof(struct tiled); }

static void *number_at(const struct tiled *tiled, const void *from, int64_t i)
{
    return (char *)from + i * (tiled->narrow ? 2 : 4);
}

/* A pixel's numbers, or others for what lies outside. */
static const void *pixel_at(const struct tiled *tiled, const void *image, int64_t y, int64_t x, const float *outside)
{
    if (y < 0 || y >= tiled->height || x < 0 || x >= tiled->width) return outside;
    return number_at(tiled, image, (y * tiled->width + x) * tiled->channels);
}

static int64_t strip_row(const struct tiled *tiled) { return (OUT * tiled->across + IN - OUT) * tiled->channels; }

#define BODY "winograd.h"
#include "each_processor.h"

enum { SEE, RESULTS, SLOPES, BACK };

/* What a function is given, and which rows of tiles of it a thread takes, all images' one after another. */
struct work {
    struct part part;
    const struct tiled *tiled;
    int direction;
    const void *from;
    const float *bias;
    void *to;
};

static void do_rows(void *part)
{
    struct work *work = part;
    const struct tiled *tiled = work->tiled;
    int64_t tiles = tiled->down * tiled->across * tiled->channels;
    int64_t pixels = tiled->height * tiled->width * tiled->channels;
    /* A strip; or zeros, for what lies outside and for no bias, and room for what is written to nowhere. */
    int64_t numbers = work->direction == BACK ? IN * strip_row(tiled) : 2 * tiled->channels;
    float *room = room_for(numbers);
    if ((work->part.failed = !room)) return;
    memset(room, 0, (size_t)numbers * sizeof *room);
    const float *bias = work->bias ? work->bias : room;
    int from_maps = work->direction == SEE || work->direction == SLOPES;
    for (int64_t row = work->part.first; row < work->part.last;) {
        int64_t n = row / tiled->down, begin = row % tiled->down, end = begin + work->part.last - row;
        if (end > tiled->down) end = tiled->down;
        row += end - begin;
        const void *from = number_at(tiled, work->from, n * (from_maps ? pixels : tiles));
        void *to = number_at(tiled, work->to, n * (from_maps ? tiles : pixels));
        switch (work->direction) {
        case SEE: PICK(see_rows)(tiled, begin, end, from, to, room); break;
        case RESULTS: PICK(result_rows)(tiled, begin, end, from, bias, to, room + tiled->channels); break;
        case SLOPES: PICK(slope_rows)(tiled, begin, end, from, to, room); break;
        case BACK: PICK(back_rows)(tiled, begin, end, from, to, room); break;
        }
    }
    free(room);
}

static int share(struct work whole)
{
    const struct tiled *tiled = whole.tiled;
    struct parts parts
        = split(do_rows, &whole, sizeof whole, tiled->team, tiled->parts, tiled->images * tiled->down);
    if (!parts.works) return -1;
    int failed = share_parts(tiled->team, tiled->threads, parts);
    free(parts.works);
    return failed ? -1 : 0;
}

/* Overlapping tiles of 6x6 pixels, transformed. */
int nasproxy_see(const struct tiled *tiled, const void *images, void *seen)
{
    return share((struct work){.tiled = tiled, .direction = SEE, .from = images, .to = seen});
}

/* The pixels of products, and a bias of each channel added, unless it is NULL. */
int nasproxy_results(const struct tiled *tiled, const void *products, const float *bias, void *maps)
{
    return share((struct work){.tiled = tiled, .direction = RESULTS, .from = products, .bias = bias, .to = maps});
}

/* The gradient on products from that on maps. */
int nasproxy_slopes(const struct tiled *tiled, const void *on_maps, void *on_products)
{
    return share((struct work){.tiled = tiled, .direction = SLOPES, .from = on_maps, .to = on_products});
}

/* The gradient on images from that on tiles seen. */
int nasproxy_back(const struct tiled *tiled, const void *on_seen, void *on_images)
{
    return share((struct work){.tiled = tiled, .direction = BACK, .from = on_seen, .to = on_images});
}

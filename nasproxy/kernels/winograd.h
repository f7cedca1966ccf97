/* The transforms of winograd.c for one set of instructions, which NAME() gives their names a suffix of.

   Channels are innermost, for the compiler to vectorise: a block of them goes through all numbers of a tile before the
   next block does, so that what lies between the two directions of a transform stays in a core's first cache. */

/* One direction of each transform, as in Lavin & Gray: of six inputs, of six products to four results, and both back. */

INLINE struct six NAME(inputs)(float a, float b, float c, float d, float e, float f)
{
    float even_p = e - QQ * c, odd_p = P * (d - QQ * b), even_q = e - PP * c, odd_q = Q * (d - PP * b);
    return (struct six){PP * QQ * a - (PP + QQ) * c + e, even_p + odd_p, even_p - odd_p, even_q + odd_q,
        even_q - odd_q, PP * QQ * b - (PP + QQ) * d + f};
}

INLINE struct four NAME(results)(float a, float b, float c, float d, float e, float f)
{
    float sum_p = b + c, less_p = b - c, sum_q = d + e, less_q = d - e;
    return (struct four){
        a + sum_p + sum_q, P * less_p + Q * less_q, PP * sum_p + QQ * sum_q, P * PP * less_p + Q * QQ * less_q + f};
}

INLINE struct six NAME(results_back)(float a, float b, float c, float d)
{
    float even_p = a + PP * c, odd_p = P * b + P * PP * d, even_q = a + QQ * c, odd_q = Q * b + Q * QQ * d;
    return (struct six){a, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, d};
}

INLINE struct six NAME(inputs_back)(float a, float b, float c, float d, float e, float f)
{
    float sum_p = b + c, less_p = b - c, sum_q = d + e, less_q = d - e;
    return (struct six){PP * QQ * a, PP * QQ * f - P * QQ * less_p - Q * PP * less_q,
        -(PP + QQ) * a - QQ * sum_p - PP * sum_q, P * less_p + Q * less_q - (PP + QQ) * f, a + sum_p + sum_q, f};
}

#define SIX(name, i) name(i, 0), name(i, 1), name(i, 2), name(i, 3), name(i, 4), name(i, 5)
#define BETWEEN(i, j) between[((i) * IN + (j)) * BLOCK + c]
#define TURNED(i, j) BETWEEN(j, i)
#define POINT(i, j) NAME(loaded)(points, ((i) * IN + (j)) * apart + c, narrow)
#define TURNED_POINT(i, j) POINT(j, i)
#define ROW(i, six)                                                               \
    BETWEEN(i, 0) = six.a, BETWEEN(i, 1) = six.b, BETWEEN(i, 2) = six.c,          \
    BETWEEN(i, 3) = six.d, BETWEEN(i, 4) = six.e, BETWEEN(i, 5) = six.f
#define TO_POINT(i, j, value) NAME(store)(points, ((i) * IN + (j)) * apart + c, value, narrow)
#define TO_POINTS(j, six)                                                         \
    TO_POINT(0, j, six.a), TO_POINT(1, j, six.b), TO_POINT(2, j, six.c),          \
    TO_POINT(3, j, six.d), TO_POINT(4, j, six.e), TO_POINT(5, j, six.f)

INLINE void NAME(see_tile)(const void *const *pixels, int64_t first, int64_t block, void *points, int64_t apart,
    int narrow)
{
    float between[IN * IN * BLOCK];
#define PIXEL(i, j) NAME(loaded)(pixels[(i) * IN + (j)], first + c, narrow)
    for (int64_t i = 0; i < IN; i++)
        EACH(c, block) {
            struct six row = NAME(inputs)(SIX(PIXEL, i));
            ROW(i, row);
        }
#undef PIXEL
    for (int64_t j = 0; j < IN; j++)
        EACH(c, block) {
            struct six column = NAME(inputs)(SIX(TURNED, j));
            TO_POINTS(j, column);
        }
}

INLINE void NAME(result_tile)(const void *points, int64_t apart, const float *bias, void *const *pixels, int64_t first,
    int64_t block, int narrow)
{
    float between[IN * IN * BLOCK];
    for (int64_t j = 0; j < IN; j++)
        EACH(c, block) {
            struct four column = NAME(results)(SIX(TURNED_POINT, j));
            BETWEEN(0, j) = column.a, BETWEEN(1, j) = column.b, BETWEEN(2, j) = column.c, BETWEEN(3, j) = column.d;
        }
#define TO_PIXEL(i, j, value) NAME(store)(pixels[(i) * OUT + (j)], first + c, value, narrow)
    for (int64_t i = 0; i < OUT; i++)
        EACH(c, block) {
            struct four row = NAME(results)(SIX(BETWEEN, i));
            float more = bias[first + c];
            TO_PIXEL(i, 0, row.a + more), TO_PIXEL(i, 1, row.b + more);
            TO_PIXEL(i, 2, row.c + more), TO_PIXEL(i, 3, row.d + more);
        }
#undef TO_PIXEL
}

INLINE void NAME(slope_tile)(const void *const *pixels, int64_t first, int64_t block, void *points, int64_t apart,
    int narrow)
{
    float between[IN * IN * BLOCK];
#define PIXEL(i, j) NAME(loaded)(pixels[(i) * OUT + (j)], first + c, narrow)
    for (int64_t i = 0; i < OUT; i++)
        EACH(c, block) {
            struct six row = NAME(results_back)(PIXEL(i, 0), PIXEL(i, 1), PIXEL(i, 2), PIXEL(i, 3));
            ROW(i, row);
        }
#undef PIXEL
    for (int64_t j = 0; j < IN; j++)
        EACH(c, block) {
            struct six column = NAME(results_back)(BETWEEN(0, j), BETWEEN(1, j), BETWEEN(2, j), BETWEEN(3, j));
            TO_POINTS(j, column);
        }
}

/* Adds to what is there, as tiles overlap. */
INLINE void NAME(back_tile)(const void *points, int64_t apart, float *strip, int64_t row, int64_t pixel, int64_t block,
    int narrow)
{
    float between[IN * IN * BLOCK];
    for (int64_t j = 0; j < IN; j++)
        EACH(c, block) {
            struct six column = NAME(inputs_back)(SIX(TURNED_POINT, j));
            BETWEEN(0, j) = column.a, BETWEEN(1, j) = column.b, BETWEEN(2, j) = column.c;
            BETWEEN(3, j) = column.d, BETWEEN(4, j) = column.e, BETWEEN(5, j) = column.f;
        }
#define STRIP(i, j) strip[(i) * row + (j) * pixel + c]
    for (int64_t i = 0; i < IN; i++)
        EACH(c, block) {
            struct six found = NAME(inputs_back)(SIX(BETWEEN, i));
            STRIP(i, 0) += found.a, STRIP(i, 1) += found.b, STRIP(i, 2) += found.c;
            STRIP(i, 3) += found.d, STRIP(i, 4) += found.e, STRIP(i, 5) += found.f;
        }
#undef STRIP
}

/* A call for each block of channels, of known size and format where the compiler gains by it. */
#define EACH_BLOCK(call)                                                                                      \
    for (int64_t first = 0; first < channels; first += BLOCK) {                                               \
        int64_t left = channels - first;                                                                      \
        if (left >= BLOCK && narrow)                                                                          \
            call(BLOCK, 1);                                                                                   \
        else if (left >= BLOCK)                                                                               \
            call(BLOCK, 0);                                                                                   \
        else                                                                                                  \
            call(left, narrow);                                                                               \
    }

static void NAME(see_rows)(const struct tiled *tiled, int64_t begin, int64_t end, const void *image, void *seen,
    const float *zeros)
{
    int64_t channels = tiled->channels, apart = tiled->apart;
    int narrow = tiled->narrow;
    const void *pixels[IN * IN];
    for (int64_t tile = begin * tiled->across; tile < end * tiled->across; tile++) {
        int64_t top = tile / tiled->across * OUT - 1, left = tile % tiled->across * OUT - 1;
        for (int64_t k = 0; k < IN * IN; k++)
            pixels[k] = pixel_at(tiled, image, top + k / IN, left + k % IN, zeros);
#define CALL(block, narrow) \
    NAME(see_tile)(pixels, first, block, number_at(tiled, seen, tile * channels + first), apart, narrow)
        EACH_BLOCK(CALL)
#undef CALL
    }
}

static void NAME(result_rows)(const struct tiled *tiled, int64_t begin, int64_t end, const void *products,
    const float *bias, void *image, float *nowhere)
{
    int64_t channels = tiled->channels, apart = tiled->apart;
    int narrow = tiled->narrow;
    void *pixels[OUT * OUT];
    for (int64_t tile = begin * tiled->across; tile < end * tiled->across; tile++) {
        int64_t top = tile / tiled->across * OUT, left = tile % tiled->across * OUT;
        for (int64_t k = 0; k < OUT * OUT; k++)
            pixels[k] = (void *)pixel_at(tiled, image, top + k / OUT, left + k % OUT, nowhere);
#define CALL(block, narrow) \
    NAME(result_tile)(number_at(tiled, products, tile * channels + first), apart, bias, pixels, first, block, narrow)
        EACH_BLOCK(CALL)
#undef CALL
    }
}

static void NAME(slope_rows)(const struct tiled *tiled, int64_t begin, int64_t end, const void *slopes, void *products,
    const float *zeros)
{
    int64_t channels = tiled->channels, apart = tiled->apart;
    int narrow = tiled->narrow;
    const void *pixels[OUT * OUT];
    for (int64_t tile = begin * tiled->across; tile < end * tiled->across; tile++) {
        int64_t top = tile / tiled->across * OUT, left = tile % tiled->across * OUT;
        for (int64_t k = 0; k < OUT * OUT; k++)
            pixels[k] = pixel_at(tiled, slopes, top + k / OUT, left + k % OUT, zeros);
#define CALL(block, narrow) \
    NAME(slope_tile)(pixels, first, block, number_at(tiled, products, tile * channels + first), apart, narrow)
        EACH_BLOCK(CALL)
#undef CALL
    }
}

/* A row of tiles at a time goes to a strip six pixels high, whose last two rows the next one overlaps: that before the
   first is done again. */
static void NAME(back_rows)(const struct tiled *tiled, int64_t begin, int64_t end, const void *on_seen, void *image,
    float *strip)
{
    int64_t channels = tiled->channels, apart = tiled->apart, row = strip_row(tiled);
    int narrow = tiled->narrow;
    memset(strip, 0, (size_t)(IN * row) * sizeof *strip);
    int64_t last = end == tiled->down ? end : end - 1;
    for (int64_t down = begin ? begin - 1 : 0; down <= last; down++) {
        for (int64_t across = 0; down < tiled->down && across < tiled->across; across++) {
            int64_t tile = down * tiled->across + across;
#define CALL(block, narrow)                                                                                        \
    NAME(back_tile)(number_at(tiled, on_seen, tile * channels + first), apart, strip + across * OUT * channels + first, \
        row, channels, block, narrow)
            EACH_BLOCK(CALL)
#undef CALL
        }
        for (int64_t i = 0; i < OUT; i++) { /* the first row and column are padding */
            int64_t y = down * OUT + i - 1;
            if (down < begin || y < 0 || y >= tiled->height) continue;
            void *to = number_at(tiled, image, y * tiled->width * channels);
            const float *from = strip + i * row + channels;
            EACH(c, tiled->width * channels) NAME(store)(to, c, from[c], narrow);
        }
        memmove(strip, strip + OUT * row, (size_t)((IN - OUT) * row) * sizeof *strip);
        memset(strip + (IN - OUT) * row, 0, (size_t)(OUT * row) * sizeof *strip);
    }
}

#undef SIX
#undef BETWEEN
#undef TURNED
#undef POINT
#undef TURNED_POINT
#undef ROW
#undef TO_POINT
#undef TO_POINTS
#undef EACH_BLOCK

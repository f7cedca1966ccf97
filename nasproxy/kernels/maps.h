/* The kernels of maps.c for one set of instructions, which NAME() gives their names a suffix of.

   Loops over channels are innermost, over contiguous numbers, for the compiler to vectorise. */

/* 1 / (1 + e^-x). The exponential is 2 to the nearest whole power, times a polynomial of the rest (S. Moshier, Cephes,
   expf). Beyond 60, where e^-x is 1e-26, x changes nothing but would lead to numbers too small to compute with fast. */
INLINE float NAME(sigmoid)(float x)
{
    x = x < -60.0f ? -60.0f : x;
    x = x > 60.0f ? 60.0f : x;
    float shifted = x * -1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: its last bits now hold the power */
    float power = shifted - 12582912.0f, scale;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&scale, &bits, sizeof bits);
    float rest = -x - power * 0.693359375f + power * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    return 1.0f / (1.0f + (sum * rest * rest + rest + 1.0f) * scale);
}

/* Of each channel of one image's maps, the mean and the sum of squared deviations from it. */
INLINE void NAME(moments_in)(const void *restrict maps, int64_t pixels, int64_t channels, float *restrict mean,
    float *restrict squares, int narrow)
{
    EACH(c, channels) mean[c] = squares[c] = 0.0f;
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4) /* sums of channels are loaded and stored once for four pixels */
        EACH(c, channels) {
            int64_t i = p * channels + c;
            float a = NAME(loaded)(maps, i, narrow), b = NAME(loaded)(maps, i + channels, narrow);
            float d = NAME(loaded)(maps, i + 2 * channels, narrow), e = NAME(loaded)(maps, i + 3 * channels, narrow);
            mean[c] += (a + b) + (d + e);
        }
    for (; p < pixels; p++)
        EACH(c, channels) mean[c] += NAME(loaded)(maps, p * channels + c, narrow);
    EACH(c, channels) mean[c] /= (float)pixels;
    for (p = 0; p + 4 <= pixels; p += 4)
        EACH(c, channels) {
            int64_t i = p * channels + c;
            float a = NAME(loaded)(maps, i, narrow) - mean[c], b = NAME(loaded)(maps, i + channels, narrow) - mean[c];
            float d = NAME(loaded)(maps, i + 2 * channels, narrow) - mean[c];
            float e = NAME(loaded)(maps, i + 3 * channels, narrow) - mean[c];
            squares[c] += (a * a + b * b) + (d * d + e * e);
        }
    for (; p < pixels; p++)
        EACH(c, channels) {
            float off = NAME(loaded)(maps, p * channels + c, narrow) - mean[c];
            squares[c] += off * off;
        }
}

static void NAME(moments)(const void *maps, const struct tail *tail, float *mean, float *squares)
{
    int64_t pixels = tail->height * tail->width;
    if (tail->narrow)
        NAME(moments_in)(maps, pixels, tail->channels, mean, squares, 1);
    else
        NAME(moments_in)(maps, pixels, tail->channels, mean, squares, 0);
}

/* From each channel's mean and squares to those of its group, and the rate 1 / sqrt(variance + eps) in their place. */
static void NAME(statistics)(const struct tail *tail, float *restrict mean, float *restrict rate)
{
    int64_t pixels = tail->height * tail->width, size = tail->channels / tail->groups;
    for (int64_t first = 0; first < tail->channels; first += size) {
        float middle = 0.0f, squares = 0.0f;
        for (int64_t c = first; c < first + size; c++) middle += mean[c];
        middle /= (float)size;
        for (int64_t c = first; c < first + size; c++)
            squares += rate[c] + (float)pixels * (mean[c] - middle) * (mean[c] - middle);
        float found = 1.0f / sqrtf(squares / (float)(size * pixels) + tail->eps);
        for (int64_t c = first; c < first + size; c++) {
            mean[c] = middle;
            rate[c] = found;
        }
    }
}

INLINE float NAME(activated)(float value, int activation)
{
    if (activation == SIGMOID) return NAME(sigmoid)(value);
    if (activation == RELU) return value <= 0.0f ? 0.0f : value; /* NaN stays NaN */
    return value <= 0.0f ? LEAK * value : value;
}

/* The gradient on what an activation takes, from that on what it gives. */
INLINE float NAME(steepened)(float slope, float value, int activation)
{
    if (activation == SIGMOID) {
        float level = NAME(sigmoid)(value);
        return slope * level * (1.0f - level);
    }
    if (activation == RELU) return value <= 0.0f ? 0.0f : slope;
    return value > 0.0f ? slope : LEAK * slope;
}

/* Normalised maps of some pixels, mapped affinely: what the activation takes. */
INLINE void NAME(values_in)(const struct tail *tail, const void *restrict maps, int64_t pixels,
    const float *restrict mean, const float *restrict rate, const float *restrict scale, const float *restrict shift,
    float *restrict values, int narrow)
{
    int64_t channels = tail->channels, step = tail->per_pixel ? channels : 0;
    for (int64_t p = 0; p < pixels; p++)
        EACH(c, channels) {
            float hat = (NAME(loaded)(maps, p * channels + c, narrow) - mean[c]) * rate[c];
            values[p * channels + c] = hat * scale[p * step + c] + shift[p * step + c];
        }
}

static void NAME(values)(const struct tail *tail, const void *maps, int64_t pixels, const float *mean,
    const float *rate, const float *scale, const float *shift, float *values)
{
    if (tail->narrow)
        NAME(values_in)(tail, maps, pixels, mean, rate, scale, shift, values, 1);
    else
        NAME(values_in)(tail, maps, pixels, mean, rate, scale, shift, values, 0);
}

/* The same, activated. */
INLINE void NAME(unpooled_in)(const struct tail *tail, const void *restrict maps, int64_t pixels,
    const float *restrict mean, const float *restrict rate, const float *restrict scale, const float *restrict shift,
    void *restrict to, int activation, int narrow)
{
    int64_t channels = tail->channels, step = tail->per_pixel ? channels : 0;
    for (int64_t p = 0; p < pixels; p++)
        EACH(c, channels) {
            float hat = (NAME(loaded)(maps, p * channels + c, narrow) - mean[c]) * rate[c];
            float value = hat * scale[p * step + c] + shift[p * step + c];
            NAME(store)(to, p * channels + c, NAME(activated)(value, activation), narrow);
        }
}

/* The gradient on what the activation takes, of maps that are not pooled. */
INLINE void NAME(unpooled_slopes_in)(const struct tail *tail, const void *restrict maps, int64_t pixels,
    const float *restrict mean, const float *restrict rate, const float *restrict scale, const float *restrict shift,
    const void *restrict from, float *restrict slope, int activation, int narrow)
{
    int64_t channels = tail->channels, step = tail->per_pixel ? channels : 0;
    for (int64_t p = 0; p < pixels; p++)
        EACH(c, channels) {
            float hat = (NAME(loaded)(maps, p * channels + c, narrow) - mean[c]) * rate[c];
            float value = hat * scale[p * step + c] + shift[p * step + c];
            slope[p * channels + c] = NAME(steepened)(NAME(loaded)(from, p * channels + c, narrow), value, activation);
        }
}

INLINE void NAME(activate_in)(
    const float *restrict values, void *restrict to, int64_t count, int activation, int narrow)
{
    EACH(i, count) NAME(store)(to, i, NAME(activated)(values[i], activation), narrow);
}

/* In place. */
INLINE void NAME(steepen_in)(float *restrict slope, const float *restrict values, int64_t count, int activation)
{
    EACH(i, count) slope[i] = NAME(steepened)(slope[i], values[i], activation);
}

/* Calls function(..., activation, narrow) with both as constants, for the compiler to leave out the others. */
#define FOR_EACH(function, activation, narrow, ...)                             \
    switch (2 * (activation) + (narrow)) {                                      \
    case 2 * SIGMOID: NAME(function)(__VA_ARGS__, SIGMOID, 0); break;           \
    case 2 * SIGMOID + 1: NAME(function)(__VA_ARGS__, SIGMOID, 1); break;       \
    case 2 * RELU: NAME(function)(__VA_ARGS__, RELU, 0); break;                 \
    case 2 * RELU + 1: NAME(function)(__VA_ARGS__, RELU, 1); break;             \
    case 2 * LEAKY_RELU: NAME(function)(__VA_ARGS__, LEAKY_RELU, 0); break;     \
    default: NAME(function)(__VA_ARGS__, LEAKY_RELU, 1);                        \
    }

static void NAME(unpooled)(const struct tail *tail, const void *maps, int64_t pixels, const float *mean,
    const float *rate, const float *scale, const float *shift, void *to)
{
    FOR_EACH(unpooled_in, tail->activation, tail->narrow, tail, maps, pixels, mean, rate, scale, shift, to)
}

static void NAME(unpooled_slopes)(const struct tail *tail, const void *maps, int64_t pixels, const float *mean,
    const float *rate, const float *scale, const float *shift, const void *from, float *slope)
{
    FOR_EACH(
        unpooled_slopes_in, tail->activation, tail->narrow, tail, maps, pixels, mean, rate, scale, shift, from, slope)
}

static void NAME(activate)(const float *values, void *to, int64_t count, int activation, int narrow)
{
    FOR_EACH(activate_in, activation, narrow, values, to, count)
}

static void NAME(steepen)(float *slope, const float *values, int64_t count, int activation)
{
    switch (activation) {
    case SIGMOID: NAME(steepen_in)(slope, values, count, SIGMOID); break;
    case RELU: NAME(steepen_in)(slope, values, count, RELU); break;
    default: NAME(steepen_in)(slope, values, count, LEAKY_RELU);
    }
}

/* Where the largest number of a window is found again: a later one takes its place only if it is larger, or NaN. */
#define TAKES(next, top) (((next) > (top)) | ((next) != (next)))

/* Windows of a tile, whose rows are `row` numbers apart, to the largest or the mean of each. */
static void NAME(pool)(
    const float *restrict values, int64_t windows, int64_t row, int64_t channels, int pooling, float *restrict pooled)
{
    for (int64_t q = 0; q < windows; q++) {
        const float *a = values + 2 * q * channels, *b = a + channels, *c = a + row, *d = c + channels;
        float *to = pooled + q * channels;
        if (pooling == MAX)
            EACH(i, channels) {
                float top = a[i];
                top = TAKES(b[i], top) ? b[i] : top;
                top = TAKES(c[i], top) ? c[i] : top;
                to[i] = TAKES(d[i], top) ? d[i] : top;
            }
        else
            EACH(i, channels) to[i] = 0.25f * (a[i] + b[i] + c[i] + d[i]);
    }
}

/* The gradient on windows, given that on what they are pooled to. */
static void NAME(unpool)(const float *pooled, const float *values, int64_t windows, int64_t row, int64_t channels,
    int pooling, float *slope)
{
    for (int64_t q = 0; q < windows; q++) {
        const float *from = pooled + q * channels;
        const float *a = values + 2 * q * channels, *b = a + channels, *c = a + row, *d = c + channels;
        float *to_a = slope + 2 * q * channels, *to_b = to_a + channels, *to_c = to_a + row, *to_d = to_c + channels;
        if (pooling == MAX)
            EACH(i, channels) {
                float top = a[i], next_b = b[i], next_c = c[i], next_d = d[i], all = from[i];
                int32_t by_b = TAKES(next_b, top);
                top = by_b ? next_b : top;
                int32_t by_c = TAKES(next_c, top);
                top = by_c ? next_c : top;
                int32_t by_d = TAKES(next_d, top);
                to_d[i] = by_d ? all : 0.0f;
                all = by_d ? 0.0f : all;
                to_c[i] = by_c ? all : 0.0f;
                all = by_c ? 0.0f : all;
                to_b[i] = by_b ? all : 0.0f;
                to_a[i] = by_b ? 0.0f : all;
            }
        else
            EACH(i, channels) to_a[i] = to_b[i] = to_c[i] = to_d[i] = 0.25f * from[i];
    }
}

INLINE void NAME(load_in)(const void *restrict from, float *restrict to, int64_t count, int narrow)
{
    EACH(i, count) to[i] = NAME(loaded)(from, i, narrow);
}

static void NAME(load)(const void *from, float *to, int64_t count, int narrow)
{
    if (narrow)
        NAME(load_in)(from, to, count, 1);
    else
        NAME(load_in)(from, to, count, 0);
}

/* Of a tile, its first pixel, and where its results begin. */
#define PIXEL(tile) ((tile).top * tail->width + (tile).left)
#define RESULT(tile) (tail->pooling == NONE ? PIXEL(tile) : (tile).top / 2 * (tail->width / 2) + (tile).left / 2)
#define AT(maps, pixel) ((const char *)(maps) + (pixel) * tail->channels * (tail->narrow ? 2 : 4))
#define TO(maps, pixel) ((char *)(maps) + (pixel) * tail->channels * (tail->narrow ? 2 : 4))
#define STEP(pixel) (tail->per_pixel ? (pixel) * tail->channels : 0)

/* The values of all pixels of a tile, row after row. */
static void NAME(tile_values)(const struct tail *tail, struct tile tile, const void *maps, const float *mean,
    const float *rate, const float *scale, const float *shift, float *values)
{
    for (int64_t r = 0; r < tile.rows; r++) {
        int64_t pixel = PIXEL(tile) + r * tail->width, step = STEP(pixel);
        NAME(values)(tail, AT(maps, pixel), tile.columns, mean, rate, scale + step, shift + step,
            values + r * tile.columns * tail->channels);
    }
}

INLINE void NAME(save_in)(const float *restrict from, void *restrict to, int64_t count, int narrow)
{
    EACH(i, count) NAME(store)(to, i, from[i], narrow);
}

static void NAME(save)(const float *from, void *to, int64_t count, int narrow)
{
    if (narrow)
        NAME(save_in)(from, to, count, 1);
    else
        NAME(save_in)(from, to, count, 0);
}

/* One image forward. */
static void NAME(forward_image)(const struct tail *tail, const void *maps, float *mean, float *rate, const float *scale,
    const float *shift, void *results, float *room)
{
    int64_t channels = tail->channels;
    float *values = room, *pooled = room + tile_numbers(tail);
    if (tail->groups) {
        NAME(moments)(maps, tail, mean, rate);
        NAME(statistics)(tail, mean, rate);
    }
    for (struct tile tile = first_tile(tail); tile.rows; tile = next_tile(tail, tile)) {
        int64_t row = tile.columns * channels, windows = tile.columns / 2;
        void *to = TO(results, RESULT(tile));
        if (tail->pooling == NONE) {
            int64_t pixel = PIXEL(tile), step = STEP(pixel);
            NAME(unpooled)(tail, AT(maps, pixel), tile.columns, mean, rate, scale + step, shift + step, to);
            continue;
        }
        if (tile.rows < 2 || !windows) continue;
        NAME(tile_values)(tail, tile, maps, mean, rate, scale, shift, values);
        if (tail->pooling == MAX) { /* no activation changes which is the largest */
            NAME(pool)(values, windows, row, channels, MAX, pooled);
            NAME(activate)(pooled, to, windows * channels, tail->activation, tail->narrow);
        } else {
            NAME(activate)(values, pooled, 2 * row, tail->activation, 0);
            NAME(pool)(pooled, windows, row, channels, AVERAGE, values);
            NAME(save)(values, to, windows * channels, tail->narrow);
        }
    }
}

/* The gradient on what the activation takes of a tile. */
static void NAME(slopes)(const struct tail *tail, struct tile tile, const void *on_results, const void *maps,
    const void *results, const float *mean, const float *rate, const float *scale, const float *shift, float *slope,
    float *room)
{
    int64_t channels = tail->channels, row = tile.columns * channels, windows = tile.columns / 2;
    float *values = room, *pooled = room + tile_numbers(tail);
    const void *from = AT(on_results, RESULT(tile));
    if (tail->pooling == NONE && tail->activation == SIGMOID) {
        NAME(load)(from, slope, row, tail->narrow);
        NAME(load)(AT(results, PIXEL(tile)), values, row, tail->narrow);
        EACH(i, row) slope[i] *= values[i] * (1.0f - values[i]);
    } else if (tail->pooling == NONE) {
        int64_t pixel = PIXEL(tile), step = STEP(pixel);
        NAME(unpooled_slopes)(tail, AT(maps, pixel), tile.columns, mean, rate, scale + step, shift + step, from, slope);
    } else { /* a last odd row or column is in no window */
        if (tile.rows < 2 || tile.columns % 2) memset(slope, 0, (size_t)(tile.rows * row) * sizeof *slope);
        if (tile.rows < 2 || !windows) return;
        NAME(tile_values)(tail, tile, maps, mean, rate, scale, shift, values);
        NAME(load)(from, pooled, windows * channels, tail->narrow);
        if (tail->pooling == MAX) { /* of a window only the largest has a gradient */
            NAME(pool)(values, windows, row, channels, MAX, pooled + windows * channels);
            NAME(steepen)(pooled, pooled + windows * channels, windows * channels, tail->activation);
        }
        NAME(unpool)(pooled, values, windows, row, channels, tail->pooling, slope);
        if (tail->pooling == AVERAGE) NAME(steepen)(slope, values, 2 * row, tail->activation);
    }
}

/* Adds to the sums over pixels of gradient and of gradient times normalised maps; per pixel, to the affine map's. */
INLINE void NAME(add_up_in)(const struct tail *tail, int64_t pixels, const float *restrict slope,
    const void *restrict maps, const float *restrict mean, const float *restrict rate, const float *restrict scale,
    float *restrict sum, float *restrict along, float *restrict on_scale, float *restrict on_shift, int narrow)
{
    int64_t channels = tail->channels, p = 0;
    if (on_scale) {
        for (; p < pixels; p++)
            EACH(c, channels) {
                int64_t i = p * channels + c;
                float hat = (NAME(loaded)(maps, i, narrow) - mean[c]) * rate[c], weighted = slope[i] * scale[i];
                on_scale[i] += slope[i] * hat;
                on_shift[i] += slope[i];
                sum[c] += weighted;
                along[c] += weighted * hat;
            }
        return;
    }
    for (; p + 2 <= pixels; p += 2)
        EACH(c, channels) {
            int64_t i = p * channels + c, j = i + channels;
            float hat = (NAME(loaded)(maps, i, narrow) - mean[c]) * rate[c];
            float next = (NAME(loaded)(maps, j, narrow) - mean[c]) * rate[c];
            sum[c] += slope[i] + slope[j];
            along[c] += slope[i] * hat + slope[j] * next;
        }
    for (; p < pixels; p++)
        EACH(c, channels) {
            int64_t i = p * channels + c;
            sum[c] += slope[i];
            along[c] += slope[i] * (NAME(loaded)(maps, i, narrow) - mean[c]) * rate[c];
        }
}

static void NAME(add_up)(const struct tail *tail, struct tile tile, const float *slope, const void *maps,
    const float *mean, const float *rate, const float *scale, float *sum, float *along, float *on_scale,
    float *on_shift)
{
    for (int64_t r = 0; r < tile.rows; r++, slope += tile.columns * tail->channels) {
        int64_t pixel = PIXEL(tile) + r * tail->width, step = STEP(pixel);
        float *to_scale = on_scale ? on_scale + step : NULL, *to_shift = on_shift ? on_shift + step : NULL;
        if (tail->narrow)
            NAME(add_up_in)(tail, tile.columns, slope, AT(maps, pixel), mean, rate, scale + step, sum, along, to_scale,
                to_shift, 1);
        else
            NAME(add_up_in)(tail, tile.columns, slope, AT(maps, pixel), mean, rate, scale + step, sum, along, to_scale,
                to_shift, 0);
    }
}

/* The gradient on maps from that on what the activation takes, less what has no effect on normalised maps; given
   statistics do not depend on the maps, so that all of it has. */
INLINE void NAME(back_in)(const struct tail *tail, int64_t pixels, const float *restrict slope,
    const void *restrict maps, const float *restrict mean, const float *restrict rate, const float *restrict scale,
    const float *restrict sum, const float *restrict along, void *restrict to, int given, int narrow)
{
    int64_t channels = tail->channels, step = tail->per_pixel ? channels : 0;
    for (int64_t p = 0; p < pixels; p++)
        EACH(c, channels) {
            float hat = (NAME(loaded)(maps, p * channels + c, narrow) - mean[c]) * rate[c];
            float found = slope[p * channels + c] * scale[p * step + c];
            if (!given) found -= sum[c] + hat * along[c];
            NAME(store)(to, p * channels + c, found * rate[c], narrow);
        }
}

static void NAME(back)(const struct tail *tail, struct tile tile, const float *slope, const void *maps,
    const float *mean, const float *rate, const float *scale, const float *sum, const float *along, void *on_maps)
{
    for (int64_t r = 0; r < tile.rows; r++, slope += tile.columns * tail->channels) {
        int64_t pixel = PIXEL(tile) + r * tail->width, step = STEP(pixel);
        const void *from = AT(maps, pixel);
        void *to = TO(on_maps, pixel);
        if (tail->narrow && sum)
            NAME(back_in)(tail, tile.columns, slope, from, mean, rate, scale + step, sum, along, to, 0, 1);
        else if (tail->narrow)
            NAME(back_in)(tail, tile.columns, slope, from, mean, rate, scale + step, NULL, NULL, to, 1, 1);
        else if (sum)
            NAME(back_in)(tail, tile.columns, slope, from, mean, rate, scale + step, sum, along, to, 0, 0);
        else
            NAME(back_in)(tail, tile.columns, slope, from, mean, rate, scale + step, NULL, NULL, to, 1, 0);
    }
}

/* One image's sums. */
static void NAME(sum_image)(const struct tail *tail, const void *on_results, const void *maps, const void *results,
    const float *mean, const float *rate, const float *scale, const float *shift, float *sum, float *along, float *room)
{
    float *slope = room, *rest = room + tile_numbers(tail);
    memset(sum, 0, (size_t)tail->channels * sizeof *sum);
    memset(along, 0, (size_t)tail->channels * sizeof *along);
    for (struct tile tile = first_tile(tail); tile.rows; tile = next_tile(tail, tile)) {
        NAME(slopes)(tail, tile, on_results, maps, results, mean, rate, scale, shift, slope, rest);
        NAME(add_up)(tail, tile, slope, maps, mean, rate, scale, sum, along, NULL, NULL);
    }
}

/* One image back, by means that are known. */
static void NAME(known_image)(const struct tail *tail, const void *on_results, const void *maps, const void *results,
    const float *mean, const float *rate, const float *scale, const float *shift, const float *sum, const float *along,
    void *on_maps, float *room)
{
    float *slope = room, *rest = room + tile_numbers(tail);
    for (struct tile tile = first_tile(tail); tile.rows; tile = next_tile(tail, tile)) {
        NAME(slopes)(tail, tile, on_results, maps, results, mean, rate, scale, shift, slope, rest);
        NAME(back)(tail, tile, slope, maps, mean, rate, scale, sum, along, on_maps);
    }
}

/* One image back, with its own means. */
static void NAME(whole_image)(const struct tail *tail, const void *on_results, const void *maps, const void *results,
    const float *mean, const float *rate, const float *scale, const float *shift, float *sum, float *along,
    float *on_scale, float *on_shift, void *on_maps, float *room)
{
    int64_t channels = tail->channels, pixels = tail->height * tail->width, size = channels / tail->groups;
    float *means = room, *alongs = means + channels, *slopes = alongs + channels, *rest = slopes + pixels * channels;
    memset(sum, 0, (size_t)channels * sizeof *sum);
    memset(along, 0, (size_t)channels * sizeof *along);
    float *slope = slopes;
    for (struct tile tile = first_tile(tail); tile.rows; tile = next_tile(tail, tile)) {
        NAME(slopes)(tail, tile, on_results, maps, results, mean, rate, scale, shift, slope, rest);
        NAME(add_up)(tail, tile, slope, maps, mean, rate, scale, sum, along, on_scale, on_shift);
        slope += tile.rows * tile.columns * channels;
    }
    for (int64_t first = 0; first < channels; first += size) {
        float all = 0.0f, all_along = 0.0f;
        for (int64_t c = first; c < first + size; c++) {
            float weight = tail->per_pixel ? 1.0f : scale[c];
            all += sum[c] * weight;
            all_along += along[c] * weight;
        }
        for (int64_t c = first; c < first + size; c++) {
            means[c] = all / (float)(size * pixels);
            alongs[c] = all_along / (float)(size * pixels);
        }
    }
    slope = slopes;
    for (struct tile tile = first_tile(tail); tile.rows; tile = next_tile(tail, tile)) {
        NAME(back)(tail, tile, slope, maps, mean, rate, scale, means, alongs, on_maps);
        slope += tile.rows * tile.columns * channels;
    }
}

#undef FOR_EACH
#undef TAKES
#undef PIXEL
#undef RESULT
#undef AT
#undef TO
#undef STEP

/* Numbers of float32 or, if narrow, of bfloat16 in memory. */

INLINE float NAME(loaded)(const void *from, int64_t i, int narrow)
{
    float value;
    if (narrow) {
        uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
        memcpy(&value, &bits, sizeof bits);
    } else {
        value = ((const float *)from)[i];
    }
    return value;
}

/* Rounds to nearest, ties to even, if narrow. */
INLINE void NAME(store)(void *to, int64_t i, float value, int narrow)
{
    if (narrow) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits += 0x7fffu + ((bits >> 16) & 1u);
        ((uint16_t *)to)[i] = value != value ? 0x7fc0u : (uint16_t)(bits >> 16);
    } else {
        ((float *)to)[i] = value;
    }
}

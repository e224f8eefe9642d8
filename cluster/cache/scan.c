// The rows of a partition that are nearest to a query, by three looks: the first bits of all rows, all bits of those
// that are near by them, and the 8-bit codes of those that are nearest by their bits. See partition_index.py.
#include <stdint.h>
#ifdef __AVX512VPOPCNTDQ__
#include <immintrin.h>
#endif

#define HEAD 2         // words of bits that the first look reads
#define MAX_BITS 16384
#define CHUNK 64
#define AHEAD 24       // rows that are fetched before they are read
#define SAMPLED 16     // one chunk in so many tells which distance is near

struct block {
    const uint64_t *head;  // [HEAD][block_rows]
    const uint64_t *tail;  // [block_rows][words - HEAD]
    const int8_t *codes;   // [block_rows][dimensions]
    const float *lengths;  // [block_rows], of the codes
};

struct near {
    uint32_t row;
    uint32_t distance;
};

// The largest distance with which at most about `wanted` of the counted ones are kept.
static int64_t limit(const int64_t *counts, int64_t bits, int64_t wanted) {
    int64_t sum = 0;
    for (int64_t distance = 0; distance <= bits; distance++) {
        sum += counts[distance];
        if (sum >= wanted) return distance;
    }
    return bits;
}

// Keeps the `wanted` nearest of `many`, which stay in their order. Returns how many are left.
static int64_t nearest_of(struct near *found, int64_t many, int64_t bits, int64_t wanted, int64_t *farthest) {
    int64_t counts[MAX_BITS + 1], kept = 0, closer = 0;
    for (int64_t each = 0; each <= bits; each++) counts[each] = 0;
    for (int64_t each = 0; each < many; each++) counts[found[each].distance]++;
    int64_t last = limit(counts, bits, wanted);
    for (int64_t each = 0; each < last; each++) closer += counts[each];
    int64_t equal = wanted - closer;
    for (int64_t each = 0; each < many; each++) {
        int64_t distance = found[each].distance;
        if (distance > last || (distance == last && equal-- <= 0)) continue;
        found[kept++] = found[each];
    }
    *farthest = last;
    return kept;
}

static inline void head_distances(
    const struct block *block, int64_t block_rows, int64_t first, const uint64_t *query, uint64_t *distances
) {
    const uint64_t *one = block->head + first, *two = one + block_rows;
    for (int64_t each = 0; each < CHUNK; each++)
        distances[each] = __builtin_popcountll(one[each] ^ query[0]) + __builtin_popcountll(two[each] ^ query[1]);
}

// The rows of a chunk that are at most `last` away, a bit for each, with the distances of all.
static inline uint64_t near_in_chunk(
    const struct block *block, int64_t block_rows, int64_t first, const uint64_t *query, int64_t last,
    uint64_t *distances
) {
    uint64_t near = 0;
#ifdef __AVX512VPOPCNTDQ__
    const uint64_t *one = block->head + first, *two = one + block_rows;
    __m512i left = _mm512_set1_epi64((int64_t)query[0]), right = _mm512_set1_epi64((int64_t)query[1]);
    __m512i most = _mm512_set1_epi64(last);
    for (int64_t each = 0; each < CHUNK; each += 8) {
        __m512i distance = _mm512_add_epi64(
            _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(one + each), left)),
            _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(two + each), right))
        );
        _mm512_storeu_si512(distances + each, distance);
        near |= (uint64_t)_mm512_cmple_epi64_mask(distance, most) << each;
    }
#else
    head_distances(block, block_rows, first, query, distances);
    for (int64_t each = 0; each < CHUNK; each++) near |= (uint64_t)((int64_t)distances[each] <= last) << each;
#endif
    return near;
}

// About the distance of the `wanted` nearest rows, by a sample of all.
static int64_t sampled_limit(
    const struct block *blocks, int64_t rows, int64_t block_rows, const uint64_t *query, int64_t wanted
) {
    uint64_t distances[CHUNK];
    int64_t counts[64 * HEAD + 1] = {0};
    for (int64_t first = 0; first + CHUNK <= rows; first += CHUNK * SAMPLED) {
        head_distances(&blocks[first / block_rows], block_rows, first % block_rows, query, distances);
        for (int64_t each = 0; each < CHUNK; each++) counts[distances[each]]++;
    }
    return limit(counts, 64 * HEAD, wanted / SAMPLED);
}

// Fills `found`, which has room for 2 * wanted + CHUNK, with about the `wanted` nearest rows by the first bits.
static int64_t first_look(
    const struct block *blocks, int64_t rows, int64_t block_rows, const uint64_t *query, int64_t wanted,
    struct near *found
) {
    uint64_t distances[CHUNK];
    int64_t many = 0, last = 64 * HEAD;
    if (rows > 2 * wanted) last = sampled_limit(blocks, rows, block_rows, query, wanted);
    for (int64_t first = 0; first < rows; first += CHUNK) {
        const struct block *block = &blocks[first / block_rows];
        uint64_t near = near_in_chunk(block, block_rows, first % block_rows, query, last, distances);
        if (rows - first < CHUNK) near &= (UINT64_C(1) << (rows - first)) - 1;
        for (; near; near &= near - 1) {
            int64_t each = __builtin_ctzll(near);
            found[many++] = (struct near){(uint32_t)(first + each), (uint32_t)distances[each]};
        }
        if (many > 2 * wanted) many = nearest_of(found, many, 64 * HEAD, wanted, &last);
    }
    return many;
}

static inline const uint64_t *tail_of(const struct block *blocks, int shift, int64_t width, uint32_t row) {
    return blocks[row >> shift].tail + (row & ((UINT32_C(1) << shift) - 1)) * width;
}

static inline const int8_t *code_of(const struct block *blocks, int shift, int64_t dimensions, uint32_t row) {
    return blocks[row >> shift].codes + (row & ((UINT32_C(1) << shift) - 1)) * dimensions;
}

static void add_tails(
    const struct block *blocks, int shift, int64_t words, const uint64_t *query, struct near *found, int64_t many
) {
    int64_t width = words - HEAD;
    for (int64_t each = 0; each < many; each++) {
        if (each + AHEAD < many) __builtin_prefetch(tail_of(blocks, shift, width, found[each + AHEAD].row));
        const uint64_t *tail = tail_of(blocks, shift, width, found[each].row);
        uint32_t distance = 0;
        for (int64_t word = 0; word < width; word++) distance += __builtin_popcountll(tail[word] ^ query[HEAD + word]);
        found[each].distance += distance;
    }
}

static int32_t product(const int8_t *one, const int8_t *other, int64_t dimensions) {
    int32_t sum = 0;
    for (int64_t each = 0; each < dimensions; each++) sum += (int16_t)one[each] * (int16_t)other[each];
    return sum;
}

// Writes the at most `count` nearest rows, by the cosine of the codes, the highest first, and returns their number.
// `near` rows are kept by their first bits and `nearer` by all; a smaller partition is compared as a whole.
// `block_rows` is a power of two, at least CHUNK. `found` has room for max(2 * near + CHUNK, nearer).
__attribute__((visibility("default"))) int64_t nearest_rows(
    const struct block *blocks, int64_t rows, int64_t block_rows, int64_t words, int64_t dimensions,
    const uint64_t *bits, const int8_t *code, float length, int64_t near, int64_t nearer, int64_t count,
    struct near *found, uint32_t *best, float *cosines
) {
    int64_t many = rows, farthest, kept = 0;
    if (count < 1) return 0;
    int shift = __builtin_ctzll((uint64_t)block_rows);  // rows to blocks without a division
    if (rows > nearer) {
        many = first_look(blocks, rows, block_rows, bits, near, found);
        add_tails(blocks, shift, words, bits, found, many);
        if (many > nearer) many = nearest_of(found, many, 64 * words, nearer, &farthest);
    } else {
        for (int64_t each = 0; each < rows; each++) found[each].row = (uint32_t)each;
    }
    for (int64_t each = 0; each < many; each++) {
        if (each + AHEAD / 4 < many) {
            const int8_t *later = code_of(blocks, shift, dimensions, found[each + AHEAD / 4].row);
            for (int64_t line = 0; line < dimensions; line += 64) __builtin_prefetch(later + line);
        }
        uint32_t row = found[each].row;
        int32_t dot = product(code_of(blocks, shift, dimensions, row), code, dimensions);
        float cosine = (float)dot / (blocks[row >> shift].lengths[row & (block_rows - 1)] * length);
        if (kept == count && cosine <= cosines[kept - 1]) continue;
        int64_t rank = kept < count ? kept++ : kept - 1;
        for (; rank > 0 && cosines[rank - 1] < cosine; rank--) {
            cosines[rank] = cosines[rank - 1];
            best[rank] = best[rank - 1];
        }
        cosines[rank] = cosine;
        best[rank] = row;
    }
    return kept;
}

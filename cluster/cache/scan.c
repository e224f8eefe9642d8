// The rows of a partition that are nearest to a query, by three looks: some signs of all rows, all signs of those that
// are near by them, and the 8-bit codes of those that are nearest by all. numpy_scan.py finds the same rows.
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSSE3__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define GROUP 4        // signs in a plane
#define CHUNK 128      // rows in 64 bytes of a plane: the first half in the low bits of each, the others in the high
#define CHUNKS 16      // whose distances are computed together
#define PLANES 14      // that the first look reads
#define MAX_WORDS 64   // of signs
#define WEIGHT_BITS 4
#define MAX_DISTANCE 16383
#define SAMPLED 64     // one chunk in so many tells which distance is near
#define AHEAD 24       // rows that are fetched before they are read

#if defined(__AVX512BW__)
#define LANES 64
#elif defined(__AVX2__)
#define LANES 32
#else
#define LANES 16
#endif
typedef uint8_t lanes __attribute__((vector_size(LANES)));
typedef uint8_t unaligned __attribute__((vector_size(LANES), aligned(1)));

struct block {
    const uint8_t *planes;  // [groups][block_rows / 2]
    const uint64_t *signs;  // [block_rows][words]
    const int8_t *codes;    // [block_rows][dimensions]
    const float *lengths;   // [block_rows], of the codes
};

struct rows {
    const struct block *blocks;
    int64_t count, in_block, words, dimensions;
    int shift;  // from a row to its block, without a division
};

struct near {
    uint32_t row;
    uint32_t distance;
};

// A distance is the sum of the weights of the signs that differ from the query's.
struct query {
    uint8_t signs[8 * MAX_WORDS];                // as numpy packs bits
    uint8_t weights[64 * MAX_WORDS];
    uint8_t digits[WEIGHT_BITS][8 * MAX_WORDS];  // of the weights, in base two, packed as the signs
    int64_t most;                                // the sum of all weights, at most MAX_DISTANCE
    int64_t chosen[PLANES];                      // the groups that weigh most
    uint8_t tables[PLANES][16];                  // what the values of each add to a distance of the first look
};

static int32_t product(const int8_t *one, const int8_t *other, int64_t dimensions) {
    int32_t sum = 0;
    for (int64_t each = 0; each < dimensions; each++) sum += (int16_t)one[each] * (int16_t)other[each];
    return sum;
}

// Weighs each sign by the size of the query's component, on a scale on which all together are at most MAX_DISTANCE.
static void weigh(struct query *query, const int8_t *rotation, const int8_t *code, const struct rows *rows) {
    int32_t turned[64 * MAX_WORDS], largest = 1, bits = (int32_t)(64 * rows->words);
    for (int64_t each = 0; each < bits; each++) {
        turned[each] = product(rotation + each * rows->dimensions, code, rows->dimensions);
        int32_t size = turned[each] < 0 ? -turned[each] : turned[each];
        if (size > largest) largest = size;
    }
    int32_t most = MAX_DISTANCE / bits;
    if (most >= 1 << WEIGHT_BITS) most = (1 << WEIGHT_BITS) - 1;
    memset(query, 0, sizeof *query);
    for (int64_t each = 0; each < bits; each++) {
        int64_t size = turned[each] < 0 ? -(int64_t)turned[each] : turned[each], bit = 7 - each % 8;
        query->weights[each] = (uint8_t)((2 * size * most + largest) / (2 * (int64_t)largest));
        query->signs[each / 8] |= (turned[each] > 0) << bit;
        query->most += query->weights[each];
        for (int64_t digit = 0; digit < WEIGHT_BITS; digit++)
            query->digits[digit][each / 8] |= (query->weights[each] >> digit & 1) << bit;
    }
}

// Chooses the groups with the largest sums of squared weights, of equal ones the first.
static void choose_groups(struct query *query, int64_t groups) {
    int32_t energies[64 * MAX_WORDS / GROUP];
    for (int64_t group = 0; group < groups; group++) {
        const uint8_t *weights = query->weights + GROUP * group;
        energies[group] = 0;
        for (int64_t sign = 0; sign < GROUP; sign++) energies[group] += weights[sign] * weights[sign];
    }
    for (int64_t each = 0; each < PLANES; each++) {
        int64_t best = 0;
        for (int64_t group = 1; group < groups; group++)
            if (energies[group] > energies[best]) best = group;
        query->chosen[each] = best;
        energies[best] = -1;
    }
}

// Scales the weights of the chosen groups so that the sum of all is at most 255.
static void make_tables(struct query *query) {
    uint32_t whole = 0, sums[PLANES][16] = {0};
    for (int64_t each = 0; each < PLANES; each++) {
        int64_t group = query->chosen[each];
        uint32_t own = query->signs[group / 2] >> (group % 2 ? 0 : GROUP);
        for (int64_t sign = 0; sign < GROUP; sign++) {
            uint32_t weight = query->weights[GROUP * group + sign];
            whole += weight;
            for (uint32_t value = 0; value < 16; value++)
                if ((value ^ own) >> (GROUP - 1 - sign) & 1) sums[each][value] += weight;
        }
    }
    for (int64_t each = 0; each < PLANES; each++)
        for (int64_t value = 0; value < 16; value++)
            query->tables[each][value] = (uint8_t)(whole ? 255 * sums[each][value] / whole : 0);
}

static inline lanes looked_up(lanes table, lanes places) {
#if defined(__AVX512BW__)
    return (lanes)_mm512_shuffle_epi8((__m512i)table, (__m512i)places);
#elif defined(__AVX2__)
    return (lanes)_mm256_shuffle_epi8((__m256i)table, (__m256i)places);
#elif defined(__SSSE3__)
    return (lanes)_mm_shuffle_epi8((__m128i)table, (__m128i)places);
#elif defined(__aarch64__)
    return (lanes)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)places);
#else
    lanes found;
    for (int64_t each = 0; each < LANES; each++) found[each] = table[places[each]];
    return found;
#endif
}

// The chosen planes of a block, with their tables in registers.
struct planes {
    const uint8_t *bytes[PLANES];
    lanes tables[PLANES];
};

static inline struct planes planes_of(const struct block *block, int64_t in_block, const struct query *query) {
    struct planes planes;
    for (int64_t each = 0; each < PLANES; each++) {
        planes.bytes[each] = block->planes + query->chosen[each] * (in_block / 2);
        for (int64_t start = 0; start < LANES; start += 16)
            memcpy((uint8_t *)&planes.tables[each] + start, query->tables[each], 16);
    }
    return planes;
}

// Writes the distances of the rows of some chunks, from row `first` of the block on.
static void chunk_distances(const struct planes *planes, int64_t first, int64_t chunks, uint8_t *distances) {
    struct planes here = *planes;
    for (int64_t start = first / 2; start < first / 2 + chunks * (CHUNK / 2); start += LANES) {
        lanes low = {0}, high = {0};
        for (int64_t each = 0; each < PLANES; each++) {
            lanes both = *(const unaligned *)(here.bytes[each] + start);
            low += looked_up(here.tables[each], both & 15);
            high += looked_up(here.tables[each], both >> GROUP);
        }
        uint8_t *half = distances + 2 * (start / 64 * 64 - first / 2) + start % 64;
        *(unaligned *)half = low;
        *(unaligned *)(half + CHUNK / 2) = high;
    }
}

// The rows of 64 that are at most `last` away, a bit for each.
static inline uint64_t near_of(const uint8_t *distances, uint8_t last) {
#if defined(__AVX512BW__)
    return _mm512_cmple_epu8_mask(_mm512_loadu_si512(distances), _mm512_set1_epi8((char)last));
#else
    uint64_t near = 0;
    for (int64_t each = 0; each < 64; each++) near |= (uint64_t)(distances[each] <= last) << each;
    return near;
#endif
}

// Counts the distances of the first look, of one chunk in `step`.
static void count_distances(const struct rows *rows, const struct query *query, int64_t step, int64_t *counts) {
    uint8_t distances[CHUNK];
    memset(counts, 0, 256 * sizeof *counts);
    for (int64_t first = 0; first < rows->count; first += CHUNK * step) {
        struct planes planes = planes_of(&rows->blocks[first >> rows->shift], rows->in_block, query);
        chunk_distances(&planes, first & (rows->in_block - 1), 1, distances);
        for (int64_t each = 0; each < CHUNK && first + each < rows->count; each++) counts[distances[each]]++;
    }
}

// Writes the rows that are less than `last` away and the first `equal` that are `last` away, in their order. Returns
// their number, or a larger one than `room` if there are more.
static int64_t collect(
    const struct rows *rows, const struct query *query, uint8_t last, int64_t equal, int64_t room, struct near *found
) {
    uint8_t distances[CHUNKS * CHUNK];
    int64_t many = 0, step = rows->in_block < CHUNKS * CHUNK ? rows->in_block : CHUNKS * CHUNK;
    for (int64_t start = 0; start < rows->count && many <= room; start += step) {
        struct planes planes = planes_of(&rows->blocks[start >> rows->shift], rows->in_block, query);
        int64_t end = start + step < rows->count ? start + step : rows->count;
        chunk_distances(&planes, start & (rows->in_block - 1), (end - start + CHUNK - 1) / CHUNK, distances);
        for (int64_t first = start; first < end && many <= room; first += 64) {
            uint64_t near = near_of(distances + first - start, last);
            if (end - first < 64) near &= (UINT64_C(1) << (end - first)) - 1;
            for (; near; near &= near - 1) {
                int64_t row = first + __builtin_ctzll(near);
                if (distances[row - start] == last && equal-- <= 0) continue;
                found[many++].row = (uint32_t)row;
            }
        }
    }
    return many;
}

// The least distance with which at least `wanted` of the counted ones are kept.
static int64_t limit(const int64_t *counts, int64_t most, int64_t wanted) {
    int64_t sum = 0;
    for (int64_t distance = 0; distance < most; distance++) {
        sum += counts[distance];
        if (sum >= wanted) return distance;
    }
    return most;
}

// How many of those that are `last` away are kept beside all that are nearer.
static int64_t equal_kept(const int64_t *counts, int64_t last, int64_t wanted) {
    for (int64_t distance = 0; distance < last; distance++) wanted -= counts[distance];
    return wanted;
}

// Writes about the `wanted` nearest rows by the chosen planes, and returns their number, from wanted / 2 to 2 * wanted.
// A sample tells which distance is near. It errs where rows that were added together are alike: all are counted then.
static int64_t first_look(const struct rows *rows, struct query *query, int64_t wanted, struct near *found) {
    int64_t counts[256];
    choose_groups(query, 64 * rows->words / GROUP);
    make_tables(query);
    count_distances(rows, query, SAMPLED, counts);
    int64_t last = limit(counts, 255, wanted / SAMPLED);
    int64_t many = collect(rows, query, (uint8_t)last, rows->count, 2 * wanted, found);
    if (wanted <= 2 * many && many <= 2 * wanted) return many;
    count_distances(rows, query, 1, counts);
    last = limit(counts, 255, wanted);
    return collect(rows, query, (uint8_t)last, equal_kept(counts, last, wanted), 2 * wanted, found);
}

static inline const uint8_t *signs_of(const struct rows *rows, uint32_t row) {
    int64_t place = row & (rows->in_block - 1);
    return (const uint8_t *)(rows->blocks[row >> rows->shift].signs + place * rows->words);
}

static inline const int8_t *code_of(const struct rows *rows, uint32_t row) {
    int64_t place = row & (rows->in_block - 1);
    return rows->blocks[row >> rows->shift].codes + place * rows->dimensions;
}

static inline void fetch(const void *bytes, int64_t count) {
    for (int64_t line = 0; line < count; line += 64) __builtin_prefetch((const uint8_t *)bytes + line);
    __builtin_prefetch((const uint8_t *)bytes + count - 1);
}

static inline uint32_t distance_of(const uint8_t *signs, const struct query *query, int64_t words) {
#if defined(__AVX512VPOPCNTDQ__)
    __m512i sum = _mm512_setzero_si512();
    for (int64_t word = 0; word < words; word += 8) {
        __mmask8 present = words - word < 8 ? (__mmask8)((1 << (words - word)) - 1) : 0xFF;
        __m512i differ = _mm512_xor_si512(
            _mm512_maskz_loadu_epi64(present, signs + 8 * word), _mm512_loadu_si512(query->signs + 8 * word)
        );
        for (int digit = 0; digit < WEIGHT_BITS; digit++) {
            __m512i both = _mm512_and_si512(differ, _mm512_loadu_si512(query->digits[digit] + 8 * word));
            sum = _mm512_add_epi64(sum, _mm512_slli_epi64(_mm512_popcnt_epi64(both), digit));
        }
    }
    return (uint32_t)_mm512_reduce_add_epi64(sum);
#else
    uint32_t distance = 0;
    for (int64_t word = 0; word < 8 * words; word += 8) {
        uint64_t one, other, weights;
        memcpy(&one, signs + word, 8);
        memcpy(&other, query->signs + word, 8);
        for (int64_t digit = 0; digit < WEIGHT_BITS; digit++) {
            memcpy(&weights, query->digits[digit] + word, 8);
            distance += (uint32_t)__builtin_popcountll((one ^ other) & weights) << digit;
        }
    }
    return distance;
#endif
}

// Keeps the `wanted` nearest of `many` by all signs, in their order; of equal ones the first. Returns their number.
static int64_t second_look(
    const struct rows *rows, const struct query *query, struct near *found, int64_t many, int64_t wanted
) {
    int64_t counts[MAX_DISTANCE + 1], kept = 0;
    memset(counts, 0, (size_t)(query->most + 1) * sizeof *counts);
    for (int64_t each = 0; each < many; each++) {
        if (each + AHEAD < many) fetch(signs_of(rows, found[each + AHEAD].row), 8 * rows->words);
        found[each].distance = distance_of(signs_of(rows, found[each].row), query, rows->words);
        counts[found[each].distance]++;
    }
    int64_t last = limit(counts, query->most, wanted), equal = equal_kept(counts, last, wanted);
    for (int64_t each = 0; each < many; each++) {
        int64_t distance = found[each].distance;
        if (distance > last || (distance == last && equal-- <= 0)) continue;
        found[kept++] = found[each];
    }
    return kept;
}

// Writes the at most `count` nearest of `many`, by the cosine of the codes, the highest first; returns their number.
static int64_t last_look(
    const struct rows *rows, const int8_t *code, const struct near *found, int64_t many, int64_t count, uint32_t *best,
    float *cosines
) {
    int64_t kept = 0;
    float length = sqrtf((float)product(code, code, rows->dimensions));
    if (length == 0) length = 1;  // the cosines of a vector of zeros are 0
    for (int64_t each = 0; each < many; each++) {
        if (each + AHEAD / 4 < many) fetch(code_of(rows, found[each + AHEAD / 4].row), rows->dimensions);
        uint32_t row = found[each].row;
        int32_t dot = product(code_of(rows, row), code, rows->dimensions);
        float cosine = (float)dot / (rows->blocks[row >> rows->shift].lengths[row & (rows->in_block - 1)] * length);
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

// Writes the at most `count` nearest rows, by the cosine of the codes, the highest first, and returns their number.
// About `near` rows are kept by some of their signs, or all of twice as many, and `nearer` by all signs; so many are
// compared as a whole. `in_block` is a power of two. If there are more than `nearer` rows, blocks have signs and whole
// chunks, and `rotation` is [64 * words][dimensions]. `found` has room for 2 * near + CHUNK, and `near` is `nearer` or
// more.
__attribute__((visibility("default"))) int64_t nearest_rows(
    const struct block *blocks, int64_t count, int64_t in_block, int64_t words, int64_t dimensions,
    const int8_t *rotation, const int8_t *code, int64_t near, int64_t nearer, int64_t wanted, struct near *found,
    uint32_t *best, float *cosines
) {
    struct rows rows = {blocks, count, in_block, words, dimensions, __builtin_ctzll((uint64_t)in_block)};
    int64_t many = count;
    if (wanted < 1) return 0;
    if (count <= 2 * near)
        for (int64_t row = 0; row < count; row++) found[row].row = (uint32_t)row;
    if (count > nearer) {
        struct query query;
        weigh(&query, rotation, code, &rows);
        if (count > 2 * near) many = first_look(&rows, &query, near, found);
        many = second_look(&rows, &query, found, many, nearer);
    }
    return last_look(&rows, code, found, many, wanted, best, cosines);
}

// Eight tile registers of up to 16 rows of 64 bytes, and the instructions that multiply them (Intel AMX: Intel 64 and IA-32
// Architectures Software Developer's Manual, LDTILECFG, TDPBF16PS and TDPBSUD).
//
// With TILES == EMULATED the same instructions are computed one step at a time, to the bit of the processor's own where it
// has fused multiply-add: so layouts and loops are tested on processors without tiles.
//
// Tile 0 to 3 hold sums. Tiles 4 and 5 hold inputs of up to 16 rows, tiles 6 and 7 weights of 16 outputs.
#pragma once
#include "panel.h"

#if TILES
#define TILE_BYTES 1024  // of a whole register

typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} TileShapes;

#if TILES == EMULATED
typedef struct {
  _Alignas(64) uint8_t bytes[TILE_ROWS][64];
} Tile;
static _Thread_local TileShapes tile_shapes;
static _Thread_local Tile tile_registers[8];

INLINE void tile_zero(int to) { memset(&tile_registers[to], 0, sizeof(Tile)); }

static void tile_load(int to, const void *from, long stride) {
  tile_zero(to);
  for (int row = 0; row < tile_shapes.rows[to]; row++)
    memcpy(tile_registers[to].bytes[row], (const char *)from + row * stride, tile_shapes.row_bytes[to]);
}

INLINE void tile_load_past(int to, const void *from, long stride) { tile_load(to, from, stride); }

static void tile_store(int from, void *to, long stride) {
  for (int row = 0; row < tile_shapes.rows[from]; row++)
    memcpy((char *)to + row * stride, tile_registers[from].bytes[row], tile_shapes.row_bytes[from]);
}

// Numbers too small to be normal are zeros, as inputs and as results.
INLINE vec flushed(vec value) {
  ivec tiny = ((ivec)value & 0x7fffffff) < 0x00800000;
  return (vec)((ivec)value & (~tiny | (int32_t)0x80000000));
}

// Sums += inputs * weights, 32 inputs: even and odd ones are added up apart, from zero, and then to the sums.
static void tile_dot_bf16(int sums, int inputs, int weights) {
  for (int row = 0; row < tile_shapes.rows[sums]; row++) {
    float *to = (float *)tile_registers[sums].bytes[row];
    const uint16_t *x = (const uint16_t *)tile_registers[inputs].bytes[row];
    for (int v = 0; v < VECS; v++) {
      vec even = {}, odd = {};
      for (int k = 0; k < tile_shapes.rows[weights]; k++) {
        ivec pairs = *(const ivec_u *)(tile_registers[weights].bytes[k] + v * BYTES);
        even = flushed(even + flushed(lower(pairs)) * flushed(splat(widen1(x[2 * k]))));
        odd = flushed(odd + flushed(upper(pairs)) * flushed(splat(widen1(x[2 * k + 1]))));
      }
      store(to + v * LANES, flushed(flushed(load(to + v * LANES)) + flushed(even + odd)));
    }
  }
}

// Sums += inputs * weights, signed bytes times unsigned ones, four in a word.
static void tile_dot_int8(int sums, int inputs, int weights) {
  for (int row = 0; row < tile_shapes.rows[sums]; row++) {
    int32_t *to = (int32_t *)tile_registers[sums].bytes[row];
    const int8_t *x = (const int8_t *)tile_registers[inputs].bytes[row];
    for (int k = 0; k < tile_shapes.rows[weights]; k++)
      for (int n = 0; n < PANEL; n++)
        for (int i = 0; i < 4; i++) to[n] += x[4 * k + i] * tile_registers[weights].bytes[k][4 * n + i];
  }
}

INLINE void load_shapes(const TileShapes *shapes) { tile_shapes = *shapes; }
INLINE void release_shapes(void) {}
#else
// The numbers of registers have to be constants. What C code has written before is in memory when a register is loaded.
#define tile_zero(to) __asm__ volatile("tilezero %%tmm" #to ::: "memory")
#define tile_load(to, from, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #to ::"r"((const void *)(from)), "r"((long)(stride)) : "memory")
// Past the first cache: what is there already, and is needed sooner, stays.
#define tile_load_past(to, from, stride) \
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #to ::"r"((const void *)(from)), "r"((long)(stride)) : "memory")
#define tile_store(from, to, stride) \
  __asm__ volatile("tilestored %%tmm" #from ", (%0,%1,1)" ::"r"((void *)(to)), "r"((long)(stride)) : "memory")
#define tile_dot_bf16(sums, inputs, weights) __asm__ volatile("tdpbf16ps %%tmm" #weights ", %%tmm" #inputs ", %%tmm" #sums ::)
#define tile_dot_int8(sums, inputs, weights) __asm__ volatile("tdpbsud %%tmm" #weights ", %%tmm" #inputs ", %%tmm" #sums ::)
INLINE void load_shapes(const TileShapes *shapes) { __asm__ volatile("ldtilecfg %0" ::"m"(*shapes) : "memory"); }
INLINE void release_shapes(void) { __asm__ volatile("tilerelease" ::: "memory"); }
#endif

static _Thread_local long tile_rows_now, tile_words_now;  // what this thread's registers are shaped for; 0: nothing

// Shapes the registers for `rows` rows of inputs, at most 16, of `words` words each; a register of weights has `words` rows.
// A new shape empties them.
static void shape_tiles(long rows, long words) {
  rows = least(rows, TILE_ROWS);
  if (rows == tile_rows_now && words == tile_words_now) return;
  TileShapes shapes = {.palette = 1};
  for (int tile = 0; tile < 8; tile++) {
    int is_input = tile == 4 || tile == 5;
    shapes.rows[tile] = (uint8_t)(tile > 5 ? words : rows);
    shapes.row_bytes[tile] = (uint16_t)(is_input ? 4 * words : 64);
  }
  load_shapes(&shapes);
  tile_rows_now = rows, tile_words_now = words;
}

// When a thread has no more use for them: else each switch of threads would save them.
static void release_tiles(void) {
  if (!tile_rows_now) return;
  release_shapes();
  tile_rows_now = tile_words_now = 0;
}
#else
static void release_tiles(void) {}
#endif

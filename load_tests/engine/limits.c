// What the machine itself can do, on all threads at once: products of bfloat16 from registers alone, and reading memory.
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define MOST_THREADS 256
#define TURNS 4096  // between two looks at the clock
#define AHEAD 2048  // bytes that are asked for before they are read

typedef struct Job {
  double (*work)(struct Job *);  // what was done: operations or bytes
  pthread_barrier_t *start;
  const char *from;
  size_t bytes;
  double seconds, done, took;
  double sum;  // of what was computed, so that it is
} Job;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

static void *timed(void *given) {
  Job *job = given;
  pthread_barrier_wait(job->start);
  double began = now();
  job->done = job->work(job);
  job->took = now() - began;
  return NULL;
}

// Of all threads together, per second of the slowest; 0 if there are no threads to be had.
static double rate(Job *jobs, int threads) {
  pthread_t ids[MOST_THREADS];
  pthread_barrier_t start;
  if (threads < 1 || threads > MOST_THREADS || pthread_barrier_init(&start, NULL, threads)) return 0;
  for (int i = 0; i < threads; i++) jobs[i].start = &start;
  for (int i = 1; i < threads; i++)
    if (pthread_create(&ids[i], NULL, timed, &jobs[i])) return 0;
  timed(&jobs[0]);
  double done = 0, took = 0;
  for (int i = 0; i < threads; i++) {
    if (i) pthread_join(ids[i], NULL);
    done += jobs[i].done;
    if (jobs[i].took > took) took = jobs[i].took;
  }
  pthread_barrier_destroy(&start);
  return done / took;
}

#if defined(__AVX512F__)
#define VECTOR 64  // bytes
#elif defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#define SUMS 12  // under way at once: with two factors they fit 16 registers

typedef float vec __attribute__((vector_size(VECTOR)));
// Sums stay in registers if every loop over them is unrolled. They differ from the start: the compiler computes equal ones
// once.
#define EACH(I, COUNT) _Pragma("GCC unroll 12") for (int I = 0; I < COUNT; I++)

#if defined(__AVX512BF16__)
typedef __m512bh Factor;
#define PRODUCTS (VECTOR / 2)  // in an instruction
#define FACTOR(A) ((__m512bh)_mm512_set1_epi32(0x3c003c80 + (A)))
#define ADD_PRODUCTS(SUM, A, B) ((vec)_mm512_dpbf16_ps((__m512)(SUM), A, B))
#else
typedef vec Factor;  // float32: what processors without products of bfloat16 multiply
#define PRODUCTS (VECTOR / 4)
#define FACTOR(A) ((vec){} + 0.01f * ((A) + 1))
#define ADD_PRODUCTS(SUM, A, B) ((SUM) * (A) + (B))  // the sum is a factor: a product of constants would be computed once
#endif

static double multiply_vectors(Job *job) {
  vec sums[SUMS];
  Factor a = FACTOR(0), b = FACTOR(1);
  EACH(i, SUMS) sums[i] = (vec){} + (float)i;
  double turns = 0;
  for (double end = now() + job->seconds; now() < end; turns += TURNS)
    for (int turn = 0; turn < TURNS; turn++) EACH(i, SUMS) sums[i] = ADD_PRODUCTS(sums[i], a, b);
  EACH(i, SUMS) job->sum += sums[i][0];
  return turns * SUMS * PRODUCTS * 2;
}

#if defined(__AMX_BF16__)
// Tiles 0 to 5 are sums, 6 and 7 the matrices: six products under way hide what one takes.
static double multiply_tiles(Job *job) {
  struct __attribute__((packed)) {
    uint8_t palette, row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape = {.palette = 1};
  uint16_t numbers[16 * 32];
  float sums[16 * 16];
  for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
  for (int i = 0; i < 16 * 32; i++) numbers[i] = 0x3c00 + i % 0x80 + (i % 3 ? 0x8000 : 0);
  _tile_loadconfig(&shape);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_loadd(6, numbers, 64);
  _tile_loadd(7, numbers, 64);
  double turns = 0;
  for (double end = now() + job->seconds; now() < end; turns += TURNS)
    for (int turn = 0; turn < TURNS; turn++) {
      _tile_dpbf16ps(0, 6, 7);
      _tile_dpbf16ps(1, 6, 7);
      _tile_dpbf16ps(2, 6, 7);
      _tile_dpbf16ps(3, 6, 7);
      _tile_dpbf16ps(4, 6, 7);
      _tile_dpbf16ps(5, 6, 7);
    }
  _tile_stored(0, sums, 64);
  job->sum = sums[0];
  _tile_release();
  return turns * 6 * 16 * 16 * 32 * 2;
}
#else
#define multiply_tiles multiply_vectors
#endif

// Whether this process may use tile registers. Linux gives them to whom asks for them.
EXPORT int may_use_tiles(void) {
#if defined(__AMX_BF16__)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
#else
  return 0;
#endif
}

// Floating-point operations a second. `tiles`: in tile registers, which this process may use.
EXPORT double products_per_s(int threads, double seconds, int tiles) {
  Job jobs[MOST_THREADS] = {};
  for (int i = 0; i < threads && i < MOST_THREADS; i++) {
    jobs[i].work = tiles ? multiply_tiles : multiply_vectors, jobs[i].seconds = seconds;
  }
  return rate(jobs, threads);
}

typedef uint64_t words __attribute__((vector_size(VECTOR)));

#define READER(NAME, PREFETCH)                                                       \
  static double NAME(Job *job) {                                                     \
    words sums[8] = {};                                                              \
    const char *end = job->from + job->bytes / sizeof(sums) * sizeof(sums);          \
    for (const char *at = job->from; at < end; at += sizeof(sums))                   \
      EACH(i, 8) {                                                                   \
        PREFETCH;                                                                    \
        sums[i] += ((const words *)at)[i];                                           \
      }                                                                              \
    EACH(i, 8) job->sum += sums[i][0];                                               \
    return end - job->from;                                                          \
  }
READER(read_on, )
READER(read_ahead, __builtin_prefetch(at + i * VECTOR + AHEAD))

// Bytes a second of `bytes` at `from`, a multiple of 64, a part for each thread. `ahead`: asking for them before.
EXPORT double bytes_per_s(const char *from, size_t bytes, int threads, int ahead) {
  Job jobs[MOST_THREADS] = {};
  for (int i = 0; i < threads && i < MOST_THREADS; i++) {
    size_t start = bytes / 64 * i / threads * 64, end = bytes / 64 * (i + 1) / threads * 64;
    jobs[i].work = ahead ? read_ahead : read_on, jobs[i].from = from + start, jobs[i].bytes = end - start;
  }
  return rate(jobs, threads);
}

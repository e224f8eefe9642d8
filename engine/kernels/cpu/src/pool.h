// Threads that work through one step together and meet at barriers.
//
// Waiting spins for some microseconds, which is what the others usually need, and then sleeps in the kernel: on a machine
// that is shared, a spinning thread would keep from the processor the very thread it waits for.
#pragma once
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vector.h"

#define MOST_THREADS 256
#define SPINS 2000

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

typedef void (*Work)(void *argument, int me);

typedef struct Pool {
  int threads;
  Work work;
  void *argument;
  _Alignas(64) _Atomic uint32_t begun;  // counts the steps
  _Alignas(64) _Atomic uint32_t arrived;  // at the barrier
  _Alignas(64) _Atomic uint32_t passed;  // counts the barriers
  _Alignas(64) _Atomic uint32_t asleep;  // threads that sleep, or are about to
  _Alignas(64) _Atomic int closing;
  pthread_t ids[MOST_THREADS];
} Pool;

typedef struct {
  Pool *pool;
  int me;
} Member;

// Until *word is no longer `old`.
static void await(Pool *pool, _Atomic uint32_t *word, uint32_t old) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) != old) return;
    PAUSE();
  }
  atomic_fetch_add(&pool->asleep, 1);
  while (atomic_load(word) == old)
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
  atomic_fetch_sub(&pool->asleep, 1);
}

// Sequentially consistent: either it is seen here that somebody sleeps, or the sleeper sees the new word.
static void advance(Pool *pool, _Atomic uint32_t *word) {
  atomic_fetch_add(word, 1);
  if (atomic_load(&pool->asleep)) syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

// Nobody goes on before all have come.
static void meet(Pool *pool) {
  if (pool->threads == 1) return;
  uint32_t round = atomic_load_explicit(&pool->passed, memory_order_acquire);
  if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == (uint32_t)pool->threads) {
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    advance(pool, &pool->passed);
  } else {
    await(pool, &pool->passed, round);
  }
}

static void *serve(void *given) {
  Member member = *(Member *)given;
  free(given);
  Pool *pool = member.pool;
  for (uint32_t seen = 0;; seen++) {
    await(pool, &pool->begun, seen);
    if (atomic_load(&pool->closing)) return NULL;
    pool->work(pool->argument, member.me);
    meet(pool);
  }
}

// Runs `work` on all threads, the caller's included, and returns when all have ended.
static void run(Pool *pool, Work work, void *argument) {
  pool->work = work, pool->argument = argument;
  if (pool->threads > 1) advance(pool, &pool->begun);
  work(argument, 0);
  meet(pool);
}

EXPORT void manta_pool_close(Pool *pool) {
  atomic_store(&pool->closing, 1);
  advance(pool, &pool->begun);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->ids[i], NULL);
  free(pool);
}

// Null if there is no memory or the system grants no more threads.
EXPORT Pool *manta_pool_open(int threads) {
  Pool *pool = aligned_alloc(64, (sizeof(Pool) + 63) / 64 * 64);
  if (!pool || threads < 1 || threads > MOST_THREADS) return NULL;
  memset(pool, 0, sizeof(Pool));
  pool->threads = 1;
  for (int i = 1; i < threads; i++) {
    Member *member = malloc(sizeof(Member));
    if (member) *member = (Member){pool, i};
    if (!member || pthread_create(&pool->ids[i], NULL, serve, member)) {
      free(member);
      manta_pool_close(pool);
      return NULL;
    }
    pool->threads++;
  }
  return pool;
}

/* A pool of threads for the parts of steps: see qcc_threads.h.
 *
 * There is no barrier object. Each slot counts the stages it has done, on a cache line of its own; a stage may begin when
 * all slots have done the one before. Who computes a slot's share claims it first, by a compare-and-swap on a line that
 * only its worker touches as a rule. After a successful claim the run cannot end before the share is done, so the members
 * that describe the run hold still.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 199309L /* clock_gettime */
#endif

#include "qcc_threads.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

/* Turns of a waiting loop, about 15 ns each on the x86 processors of 2024. */
#define SPINS_BEFORE_SLEEP 3000 /* of a worker between two runs */
#define SPINS_BEFORE_YIELD 1000 /* of anyone within a run */
#define SPINS_BEFORE_HELP 200   /* of the caller, before it takes a share that a worker has not begun */

/* Since the run before: then a worker would still be awake, had it been woken. Shorter than SPINS_BEFORE_SLEEP. */
#define CLOSE_NANOSECONDS 20000

static uint32_t load(const uint32_t *x) { return __atomic_load_n(x, __ATOMIC_ACQUIRE); }

/* a comes before b, as counters that wrap around. */
static int is_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

static int64_t nanoseconds(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void relax(int32_t spins) {
  if (spins > SPINS_BEFORE_YIELD) {
    (void)sched_yield();
    return;
  }
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__ARM_ARCH_7A__)
  __asm__ volatile("yield");
#endif
}

/* Computes a slot's share of a stage, unless the stage may not begin yet or the share is taken. */
static void take(qcc_pool *pool, qcc_pool_slot *slot, uint32_t stage) {
  uint32_t expected = stage;
  int32_t part;
  int32_t t;
  for (t = 0; t < pool->threads; ++t) {
    if (is_before(load(&pool->slots[t].done), stage)) {
      return;
    }
  }
  if (__atomic_compare_exchange_n(&slot->claimed, &expected, stage + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    for (part = (int32_t)(slot - pool->slots); part < pool->parts; part += pool->threads) {
      pool->function(pool->context, (int32_t)(stage - pool->begin), part);
    }
    __atomic_store_n(&slot->done, stage + 1, __ATOMIC_RELEASE);
  }
}

/* Until someone wakes it, unless there is something to do. Either the caller sees `sleepers` after it has set `end`, or this
 * sees `end`. It does not look again once woken: the run may be over, and the next one about to begin. */
static void sleep_until_woken(qcc_pool *pool, qcc_pool_slot *slot) {
  (void)pthread_mutex_lock(&pool->mutex);
  __atomic_store_n(&slot->asleep, 1, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
  if (!is_before(load(&slot->claimed), __atomic_load_n(&pool->end, __ATOMIC_SEQ_CST)) &&
      !__atomic_load_n(&pool->stop, __ATOMIC_SEQ_CST)) {
    (void)pthread_cond_wait(&pool->wake, &pool->mutex);
  }
  __atomic_store_n(&slot->asleep, 0, __ATOMIC_RELAXED);
  (void)pthread_mutex_unlock(&pool->mutex);
}

static void wake_sleepers(qcc_pool *pool) {
  (void)pthread_mutex_lock(&pool->mutex);
  __atomic_store_n(&pool->sleepers, 0, __ATOMIC_RELAXED);
  (void)pthread_cond_broadcast(&pool->wake);
  (void)pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *argument) {
  qcc_pool_slot *const slot = (qcc_pool_slot *)argument;
  qcc_pool *const pool = slot->pool;
  uint32_t latest = 0;
  int32_t spins = 0;
  for (;;) {
    const uint32_t stage = load(&slot->claimed);
    spins = stage == latest ? spins + 1 : 0;
    latest = stage;
    if (is_before(stage, load(&pool->end))) {
      take(pool, slot, stage);
      relax(spins);
    } else if (load(&pool->stop)) {
      return NULL;
    } else if (spins < SPINS_BEFORE_SLEEP) {
      relax(0);
    } else {
      sleep_until_woken(pool, slot);
      spins = 0;
    }
  }
}

int qcc_pool_start(qcc_pool *pool, int32_t threads) {
  int error;
  int32_t t;
  if (threads < 1 || threads > QCC_THREADS_MAX) {
    return EINVAL;
  }
  for (t = 0; t < QCC_THREADS_MAX; ++t) {
    pool->slots[t].claimed = pool->slots[t].done = pool->slots[t].asleep = 0;
    pool->slots[t].pool = pool;
  }
  pool->end = pool->stop = pool->sleepers = 0;
  pool->ended = 0;
  pool->threads = 1;
  error = pthread_mutex_init(&pool->mutex, NULL);
  if (error != 0) {
    return error;
  }
  error = pthread_cond_init(&pool->wake, NULL);
  if (error != 0) {
    (void)pthread_mutex_destroy(&pool->mutex);
    return error;
  }
  for (t = 1; t < threads; ++t) {
    error = pthread_create(&pool->workers[t], NULL, work, &pool->slots[t]);
    if (error != 0) {
      pool->threads = t;
      qcc_pool_stop(pool);
      return error;
    }
  }
  pool->threads = threads; /* workers read it in a run, which begins after this */
  return 0;
}

void qcc_pool_stop(qcc_pool *pool) {
  int32_t t;
  __atomic_store_n(&pool->stop, 1, __ATOMIC_SEQ_CST);
  wake_sleepers(pool);
  for (t = 1; t < pool->threads; ++t) {
    (void)pthread_join(pool->workers[t], NULL);
  }
  (void)pthread_cond_destroy(&pool->wake);
  (void)pthread_mutex_destroy(&pool->mutex);
}

static void run_alone(qcc_stage *function, void *context, int32_t stages, int32_t parts) {
  int32_t stage;
  int32_t part;
  for (stage = 0; stage < stages; ++stage) {
    for (part = 0; part < parts; ++part) {
      function(context, stage, part);
    }
  }
}

void qcc_pool_run(qcc_pool *pool, qcc_stage *function, void *context, int32_t stages, int32_t parts, int is_long) {
  uint32_t stage;
  uint32_t end;
  int32_t t;
  if (pool == NULL || pool->threads == 1) {
    run_alone(function, context, stages, parts);
    return;
  }
  stage = pool->end;
  end = stage + (uint32_t)stages;
  pool->function = function;
  pool->context = context;
  pool->begin = stage;
  pool->parts = parts;
  for (t = parts; t < pool->threads; ++t) { /* nothing to do in this run */
    __atomic_store_n(&pool->slots[t].claimed, end, __ATOMIC_RELEASE);
    __atomic_store_n(&pool->slots[t].done, end, __ATOMIC_RELEASE);
  }
  __atomic_store_n(&pool->end, end, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST) &&
      (is_long || nanoseconds() - pool->ended < CLOSE_NANOSECONDS)) {
    wake_sleepers(pool);
  }
  for (; stage != end; ++stage) {
    int32_t spins;
    int32_t pending = 1;
    take(pool, &pool->slots[0], stage);
    for (spins = 0; pending; ++spins) {
      pending = 0;
      for (t = 1; t < pool->threads; ++t) {
        qcc_pool_slot *const slot = &pool->slots[t];
        if (is_before(load(&slot->done), stage + 1)) {
          pending = 1;
          if (spins > SPINS_BEFORE_HELP || __atomic_load_n(&slot->asleep, __ATOMIC_RELAXED)) {
            take(pool, slot, stage);
          }
        }
      }
      if (pending) {
        relax(spins);
      }
    }
  }
  pool->ended = nanoseconds();
}

int32_t qcc_pool_bytes(void) { return (int32_t)sizeof(qcc_pool); }

int32_t qcc_pool_align(void) { return 64; }

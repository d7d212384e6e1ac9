/* A pool of threads that compute the parts of a model's steps together.
 *
 * The caller provides the memory (an object of type qcc_pool), and is one of the threads itself. One call uses a pool at a
 * time; several models may take turns. Workers that have had nothing to do for some microseconds sleep. To wake one costs
 * the caller some microseconds too, so a short run wakes them only where runs follow each other closely. A worker that
 * sleeps, or that the system keeps from running, holds nothing up: the caller computes its parts.
 *
 * Needs POSIX threads and the atomic builtins of gcc and clang. Compiles as C99 and as C++17.
 */
#ifndef QCC_THREADS_H
#define QCC_THREADS_H

#include "qcc_kernels.h"

#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QCC_THREADS_MAX 64

/* Computes one part of a stage: a step of the model, or steps that follow each other. A part that a stage does not have is
 * no work. */
typedef void qcc_stage(void *context, int32_t stage, int32_t part);

/* The share of one thread. Stages are counted over all runs of a pool, modulo 2^32. */
typedef struct {
  QCC_ALIGNED(64) uint32_t claimed; /* stages whose share was begun, by the slot's worker or by the caller */
  uint32_t asleep;                  /* 1: the worker waits to be woken */
  struct qcc_pool *pool;
  QCC_ALIGNED(64) uint32_t done; /* stages whose share is computed */
} qcc_pool_slot;

/* All members are private to qcc_threads.c. */
typedef struct qcc_pool {
  qcc_pool_slot slots[QCC_THREADS_MAX]; /* that of the caller is the first */
  QCC_ALIGNED(64) uint32_t end;         /* number of the stage behind the last one of the latest run */
  uint32_t stop;
  QCC_ALIGNED(64) qcc_stage *function; /* of the latest run, as are the next three */
  void *context;
  uint32_t begin;
  int32_t parts;
  int32_t threads;
  int64_t ended; /* when the latest run did, in nanoseconds */
  uint32_t sleepers; /* 0: all are awake, or about to be */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t workers[QCC_THREADS_MAX];
} qcc_pool;

/* Starts threads - 1 workers (threads: 1 to QCC_THREADS_MAX). Returns 0, or the error of the system, which is EINVAL for
 * another number; then there is nothing to stop. */
int qcc_pool_start(qcc_pool *pool, int32_t threads);

/* Ends the workers and waits for them. */
void qcc_pool_stop(qcc_pool *pool);

/* Computes the stages in order, each one (all its parts) before the next. Without a pool (NULL), the caller does it alone.
 * is_long: 1 if it is worth to wake sleeping workers whenever the run takes place. */
void qcc_pool_run(qcc_pool *pool, qcc_stage *function, void *context, int32_t stages, int32_t parts, int is_long);

/* sizeof(qcc_pool) and its alignment, for callers in other languages. */
int32_t qcc_pool_bytes(void);
int32_t qcc_pool_align(void);

#ifdef __cplusplus
}
#endif

#endif

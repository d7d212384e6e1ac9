/* residual_net: residual net, compiled for c
 *
 * Made by qcc VERSION from model.onnx, sha256 0123abcd.
 * Target: c, io=int8.
 *
 * input  image: s8[1, 6, 6, 3]
 * output scores: s8[1, 5]
 *
 * All state is in the arena: calls with different arenas may run at the same time. Nothing is initialized or freed.
 */
#ifndef RESIDUAL_NET_H
#define RESIDUAL_NET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory that one call needs. */
#define RESIDUAL_NET_ARENA_BYTES 576
#define RESIDUAL_NET_ARENA_ALIGN 16

/* Bytes of all inputs and of all outputs. */
#define RESIDUAL_NET_INPUT_BYTES 108
#define RESIDUAL_NET_OUTPUT_BYTES 5

/* Where input and output may lie inside the arena, to need no memory of their own. The call then overwrites the
 * input; the output stays until the next call. */
#define RESIDUAL_NET_INPUT_ARENA_OFFSET 288
#define RESIDUAL_NET_OUTPUT_ARENA_OFFSET 288

#define RESIDUAL_NET_INPUT_COUNT 1
#define RESIDUAL_NET_OUTPUT_COUNT 1

/* image: s8[1, 6, 6, 3] */
#define RESIDUAL_NET_INPUT_OFFSET 0 /* bytes from the start of all */
#define RESIDUAL_NET_INPUT_ELEMENTS 108 /* int8_t */
#define RESIDUAL_NET_INPUT_RANK 4
#define RESIDUAL_NET_INPUT_DIMS {1, 6, 6, 3}
#define RESIDUAL_NET_INPUT_TYPE int8_t
#define RESIDUAL_NET_INPUT_SCALE 0x1.0f652cp-4f /* 0.066258592 */
#define RESIDUAL_NET_INPUT_ZERO_POINT 47

/* scores: s8[1, 5] */
#define RESIDUAL_NET_OUTPUT_OFFSET 0 /* bytes from the start of all */
#define RESIDUAL_NET_OUTPUT_ELEMENTS 5 /* int8_t */
#define RESIDUAL_NET_OUTPUT_RANK 2
#define RESIDUAL_NET_OUTPUT_DIMS {1, 5}
#define RESIDUAL_NET_OUTPUT_TYPE int8_t
#define RESIDUAL_NET_OUTPUT_SCALE 0x1.c0366ep-2f /* 0.437707637 */
#define RESIDUAL_NET_OUTPUT_ZERO_POINT 31

/* Runs the model once.
 *
 * arena: RESIDUAL_NET_ARENA_BYTES bytes, aligned to RESIDUAL_NET_ARENA_ALIGN; contents do not matter.
 * in:    RESIDUAL_NET_INPUT_BYTES bytes; see the offsets above.
 * out:   RESIDUAL_NET_OUTPUT_BYTES bytes; see the offsets above.
 * Returns 0; 1 when a pointer is null; 2 when the arena is misaligned.
 */
int residual_net_run(void *arena, const int8_t *in, int8_t *out);

#ifdef RESIDUAL_NET_STATIC_ARENA
/* The same in an arena of its own, which makes it not re-entrant. Define RESIDUAL_NET_STATIC_ARENA for residual_net.c too. */
int residual_net_invoke(const int8_t *in, int8_t *out);
#endif

#ifdef __cplusplus
}
#endif

#endif

/* Kernels that move elements and never change them. Elements are 1, 2 or 4 bytes of any type. */
#ifndef QCC_MOVEMENT_H
#define QCC_MOVEMENT_H

#include "qcc_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sizes, strides and offsets count elements. Unused leading axes have size 1. */
typedef struct {
  int32_t element_bytes;
  int32_t offset;     /* of the first element read */
  int32_t shape[6];   /* of the output */
  int32_t strides[6]; /* of the input along the output's axes; 0 repeats, negative reverses */
} qcc_copy_params;

void qcc_copy_scalar(const qcc_copy_params *params, const void *QCC_RESTRICT input, void *QCC_RESTRICT output);

typedef struct {
  int32_t element_bytes;
  int32_t fill;     /* bits of the element written where an index is negative */
  int32_t block;    /* consecutive elements behind each index */
  int32_t shape[5]; /* of the output, in blocks */
} qcc_gather_params;

/* index: int32[shape[0] + ... + shape[4]], the tables of the axes one after the other. */
void qcc_gather_scalar(const qcc_gather_params *params, const void *QCC_RESTRICT input,
                       const int32_t *QCC_RESTRICT index, void *QCC_RESTRICT output);

typedef struct {
  int32_t inputs; /* number of inputs */
  int32_t blocks; /* product of the axes before the concatenated one */
} qcc_concat_params;

/* block_bytes: int32[inputs], bytes that each input contributes to a block. constant: operands known at compile time;
 * they stand, in order, where a pointer in inputs is NULL. */
void qcc_concat_scalar(const qcc_concat_params *params, const void *const *inputs,
                       const int32_t *QCC_RESTRICT block_bytes, const void *QCC_RESTRICT constant,
                       void *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif

/* What moves runs of bytes, over a function that does it well on a processor: concatenation, and copies along axes. */
#ifndef QCC_RUNS_H
#define QCC_RUNS_H

#include "qcc_movement.h"

/* Copy `count` runs of `bytes`, to_step and from_step apart. */
typedef void qcc_copy_runs(int8_t *to, ptrdiff_t to_step, const int8_t *from, ptrdiff_t from_step, ptrdiff_t bytes,
                           int32_t count);

/* output = for each block: operand 0 [block_bytes[0]], operand 1 [block_bytes[1]], ... */
static inline void qcc_concat_runs(qcc_copy_runs *copy, const qcc_concat_params *params, const void *const *inputs,
                                   const int32_t *block_bytes, const void *constant, void *output) {
  const int8_t *constants = (const int8_t *)constant;
  int8_t *to = (int8_t *)output;
  ptrdiff_t total = 0;
  for (int32_t k = 0; k < params->inputs; ++k) {
    total += block_bytes[k];
  }
  for (int32_t k = 0; k < params->inputs; ++k) {
    const int32_t bytes = block_bytes[k];
    const int8_t *from = (const int8_t *)inputs[k];
    if (from == NULL) {
      from = constants;
      constants += (ptrdiff_t)bytes * params->blocks;
    }
    copy(to, total, from, bytes, bytes, params->blocks);
    to += bytes;
  }
}

/* output[i0, ..., i5] = input[offset + sum ik * strides[k]], where strides[5] is 1 */
static inline void qcc_copy_axes(qcc_copy_runs *copy, const qcc_copy_params *params, const void *input, void *output) {
  const int32_t *shape = params->shape, *strides = params->strides;
  const int8_t *from = (const int8_t *)input + params->offset;
  int8_t *to = (int8_t *)output;
  for (int32_t i0 = 0; i0 < shape[0]; ++i0) {
    for (int32_t i1 = 0; i1 < shape[1]; ++i1) {
      for (int32_t i2 = 0; i2 < shape[2]; ++i2) {
        for (int32_t i3 = 0; i3 < shape[3]; ++i3) {
          const ptrdiff_t at = (ptrdiff_t)i0 * strides[0] + (ptrdiff_t)i1 * strides[1] + (ptrdiff_t)i2 * strides[2] +
                               (ptrdiff_t)i3 * strides[3];
          copy(to, shape[5], from + at, strides[4], shape[5], shape[4]);
          to += (ptrdiff_t)shape[4] * shape[5];
        }
      }
    }
  }
}

#endif

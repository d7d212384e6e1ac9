/* Strided copy: transpose, slice, expand, and whatever else reads its operand with fixed strides.
 *
 *   output[i0, ..., i5] = input[offset + sum ik * strides[k]]
 *
 * input: elements of element_bytes (1, 2 or 4) each; output: shape, densely packed; they do not overlap.
 * Reference: float_ref of the ops in qcc/ir/ops/shape.py, from which the strides are read.
 */
#include "qcc_movement.h"

/* Bytes, so that elements may be of any type; compilers turn the inner loop into one load and one store. */
static inline void copy_strided(unsigned char *output, const unsigned char *input, int32_t count,
                                ptrdiff_t stride_bytes, int32_t element_bytes) {
  for (int32_t i = 0; i < count; ++i) {
    for (int32_t b = 0; b < element_bytes; ++b) {
      output[b] = input[b];
    }
    input += stride_bytes;
    output += element_bytes;
  }
}

void qcc_copy_scalar(const qcc_copy_params *params, const void *QCC_RESTRICT input, void *QCC_RESTRICT output) {
  const int32_t bytes = params->element_bytes;
  const int32_t row = params->shape[5];
  const ptrdiff_t stride = (ptrdiff_t)params->strides[5] * bytes;
  const unsigned char *from = (const unsigned char *)input + (ptrdiff_t)params->offset * bytes;
  unsigned char *to = (unsigned char *)output;
  int32_t at[5] = {0, 0, 0, 0, 0};
  for (;;) {
    if (stride == bytes) {
      copy_strided(to, from, row * bytes, 1, 1);
    } else if (bytes == 1) {
      copy_strided(to, from, row, stride, 1);
    } else if (bytes == 2) {
      copy_strided(to, from, row, stride, 2);
    } else {
      copy_strided(to, from, row, stride, 4);
    }
    to += (ptrdiff_t)row * bytes;
    /* next row: count up the outer axes, the last of them fastest */
    int axis = 4;
    for (; axis >= 0; --axis) {
      const ptrdiff_t step = (ptrdiff_t)params->strides[axis] * bytes;
      if (++at[axis] < params->shape[axis]) {
        from += step;
        break;
      }
      at[axis] = 0;
      from -= step * (params->shape[axis] - 1);
    }
    if (axis < 0) {
      return;
    }
  }
}

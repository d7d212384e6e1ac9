/* Copy through one index table per axis: pad in every mode, take, tile, nearest resize, depth_to_space.
 *
 *   output[i0, ..., i4, j] = input[t0[i0] + ... + t4[i4] + j]   for 0 <= j < block
 *                          = fill                               where one of the t is negative
 *
 * tk: the k-th table inside index, with shape[k] entries. input: elements of element_bytes (1, 2 or 4) each;
 * output: densely packed; they do not overlap.
 * Reference: float_ref and int_ref of the ops in qcc/ir/ops, from which the tables are read.
 */
#include "qcc_movement.h"

static void copy_block(unsigned char *output, const unsigned char *input, int32_t bytes) {
  for (int32_t i = 0; i < bytes; ++i) {
    output[i] = input[i];
  }
}

/* fill as the target stores it in memory, whatever its byte order. */
static void fill_block(unsigned char *output, int32_t fill, int32_t count, int32_t element_bytes) {
  const int8_t narrow = (int8_t)fill;
  const int16_t half = (int16_t)fill;
  const unsigned char *bits = (const unsigned char *)&fill;
  if (element_bytes == 1) {
    bits = (const unsigned char *)&narrow;
  } else if (element_bytes == 2) {
    bits = (const unsigned char *)&half;
  }
  for (int32_t i = 0; i < count; ++i) {
    for (int32_t b = 0; b < element_bytes; ++b) {
      *output++ = bits[b];
    }
  }
}

void qcc_gather_scalar(const qcc_gather_params *params, const void *QCC_RESTRICT input,
                       const int32_t *QCC_RESTRICT index, void *QCC_RESTRICT output) {
  const int32_t bytes = params->element_bytes;
  const int32_t block = params->block;
  const int32_t *shape = params->shape;
  const int32_t *t0 = index;
  const int32_t *t1 = t0 + shape[0];
  const int32_t *t2 = t1 + shape[1];
  const int32_t *t3 = t2 + shape[2];
  const int32_t *t4 = t3 + shape[3];
  const unsigned char *from = (const unsigned char *)input;
  unsigned char *to = (unsigned char *)output;
  for (int32_t i0 = 0; i0 < shape[0]; ++i0) {
    for (int32_t i1 = 0; i1 < shape[1]; ++i1) {
      for (int32_t i2 = 0; i2 < shape[2]; ++i2) {
        for (int32_t i3 = 0; i3 < shape[3]; ++i3) {
          const int32_t outside = (t0[i0] | t1[i1] | t2[i2] | t3[i3]) < 0;
          const int32_t base = outside ? 0 : t0[i0] + t1[i1] + t2[i2] + t3[i3];
          for (int32_t i4 = 0; i4 < shape[4]; ++i4) {
            if (outside || t4[i4] < 0) {
              fill_block(to, params->fill, block, bytes);
            } else {
              copy_block(to, from + (ptrdiff_t)(base + t4[i4]) * bytes, block * bytes);
            }
            to += (ptrdiff_t)block * bytes;
          }
        }
      }
    }
  }
}

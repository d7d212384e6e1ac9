/* copy_runs_neon: what moves runs of bytes: concatenation, slices, padding, repetition.
 *
 *   concat  output = for each block: operand 0 [block_bytes[0]], operand 1 [block_bytes[1]], ...
 *   copy    output[i0, ..., i5] = input[offset + sum ik * strides[k]], where strides[5] is 1
 *   gather  output[i0, ..., i4] = before * fill, input[t0[i0] + ... + t4[i4]] to the `run`th behind it, after * fill;
 *           `fill` alone where one of the t is negative
 *
 * Elements are int8; the arrays are those of concat_scalar, copy_scalar and gather_scalar, and overlap nothing.
 * Reference: Concat in qcc/ir/ops/rearrange.py; int_ref of the ops from which strides and tables are read.
 */
#include "qcc_neon_copy.h"
#include "qcc_runs.h"

/* `count` runs of a number of bytes that the compiler knows. */
QCC_INLINE void copy_sized(const size_t bytes, int8_t *to, ptrdiff_t to_step, const int8_t *from, ptrdiff_t from_step,
                           int32_t count) {
  for (; count > 0; --count, to += to_step, from += from_step) {
    __builtin_memcpy(to, from, bytes);
  }
}

/* Runs between two sizes that the compiler knows: their first and their last bytes, some of which are the same. */
QCC_INLINE void copy_ends(const size_t least, int8_t *to, ptrdiff_t to_step, const int8_t *from, ptrdiff_t from_step,
                          ptrdiff_t bytes, int32_t count) {
  const ptrdiff_t last = bytes - (ptrdiff_t)least;
  for (; count > 0; --count, to += to_step, from += from_step) {
    __builtin_memcpy(to, from, least);
    __builtin_memcpy(to + last, from + last, least);
  }
}

static void copy_runs(int8_t *to, ptrdiff_t to_step, const int8_t *from, ptrdiff_t from_step, ptrdiff_t bytes,
                      int32_t count) {
  if (to_step == bytes && from_step == bytes) {
    qcc_copy(to, from, bytes * count);
    return;
  }
  switch (bytes) {
    case 1: copy_sized(1, to, to_step, from, from_step, count); return;
    case 2: copy_sized(2, to, to_step, from, from_step, count); return;
    case 3: copy_ends(2, to, to_step, from, from_step, bytes, count); return;
    case 4: copy_sized(4, to, to_step, from, from_step, count); return;
    case 8: copy_sized(8, to, to_step, from, from_step, count); return;
    case 16: copy_sized(16, to, to_step, from, from_step, count); return;
    case 32: copy_sized(32, to, to_step, from, from_step, count); return;
    default: break;
  }
  if (bytes < 8) {
    copy_ends(4, to, to_step, from, from_step, bytes, count);
  } else if (bytes < 16) {
    copy_ends(8, to, to_step, from, from_step, bytes, count);
  } else if (bytes < 32) {
    copy_ends(16, to, to_step, from, from_step, bytes, count);
  } else {
    for (; count > 0; --count, to += to_step, from += from_step) {
      qcc_copy(to, from, bytes);
    }
  }
}

void qcc_concat_neon(const qcc_concat_params *params, const void *const *inputs, const int32_t *QCC_RESTRICT block_bytes,
                     const void *QCC_RESTRICT constant, void *QCC_RESTRICT output) {
  qcc_concat_runs(copy_runs, params, inputs, block_bytes, constant, output);
}

void qcc_s8_copy_neon(const qcc_copy_params *params, const void *QCC_RESTRICT input, void *QCC_RESTRICT output) {
  qcc_copy_axes(copy_runs, params, input, output);
}

void qcc_s8_gather_neon(const qcc_neon_gather_params *params, const int8_t *QCC_RESTRICT input,
                        const int32_t *QCC_RESTRICT index, int8_t *QCC_RESTRICT output) {
  const int32_t before = params->before, run = params->run, after = params->after, fill = params->fill;
  const int32_t width = before + run + after;
  const int32_t *shape = params->shape;
  const int32_t *t0 = index, *t1 = t0 + shape[0], *t2 = t1 + shape[1], *t3 = t2 + shape[2], *t4 = t3 + shape[3];
  for (int32_t i0 = 0; i0 < shape[0]; ++i0) {
    for (int32_t i1 = 0; i1 < shape[1]; ++i1) {
      for (int32_t i2 = 0; i2 < shape[2]; ++i2) {
        for (int32_t i3 = 0; i3 < shape[3]; ++i3) {
          const int32_t outside = (t0[i0] | t1[i1] | t2[i2] | t3[i3]) < 0;
          const ptrdiff_t base = outside ? 0 : (ptrdiff_t)t0[i0] + t1[i1] + t2[i2] + t3[i3];
          for (int32_t i4 = 0; i4 < shape[4]; ++i4, output += width) {
            if (outside || t4[i4] < 0) {
              qcc_fill(output, fill, width);
              continue;
            }
            qcc_fill(output, fill, before);
            copy_runs(output + before, 0, input + base + t4[i4], 0, run, 1);
            qcc_fill(output + before + run, fill, after);
          }
        }
      }
    }
  }
}

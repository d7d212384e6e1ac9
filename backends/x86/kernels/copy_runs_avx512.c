/* copy_runs_avx512: what moves runs of bytes: concatenation, slices, padding, repetition.
 *
 *   concat  output = for each block: operand 0 [block_bytes[0]], operand 1 [block_bytes[1]], ...
 *   copy    output[i0, ..., i5] = input[offset + sum ik * strides[k]], where strides[5] is 1
 *   gather  output[i0, ..., i4] = before * fill, input[t0[i0] + ... + t4[i4]] to the `run`th behind it, after * fill;
 *           `fill` alone where one of the t is negative
 *
 * Elements are int8; the arrays are those of concat_scalar, copy_scalar and gather_scalar, and overlap nothing. A run of up
 * to 64 bytes is one masked vector, as long as it has no size that a plain move has.
 * Reference: Concat in qcc/ir/ops/rearrange.py; int_ref of the ops from which strides and tables are read.
 */
#include "qcc_avx512_lanes.h"
#include "qcc_runs.h"

/* `count` runs of a number of bytes that the compiler knows. */
QCC_INLINE void copy_sized(const size_t bytes, int8_t *to, ptrdiff_t to_step, const int8_t *from, ptrdiff_t from_step,
                           ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    __builtin_memcpy(to + i * to_step, from + i * from_step, bytes);
  }
}

static void copy_long(int8_t *to, const int8_t *from, ptrdiff_t bytes) {
  for (ptrdiff_t i = 0; i < bytes - 64; i += 64) {
    _mm512_storeu_si512(to + i, _mm512_loadu_si512(from + i));
  }
  _mm512_storeu_si512(to + bytes - 64, _mm512_loadu_si512(from + bytes - 64)); /* some bytes for the second time */
}

static void copy_runs(int8_t *to, ptrdiff_t to_step, const int8_t *from, ptrdiff_t from_step, ptrdiff_t bytes,
                      int32_t count) {
  if (to_step == bytes && from_step == bytes) {
    bytes *= count;
    count = 1;
  }
  if (bytes > 64) {
    for (ptrdiff_t i = 0; i < count; ++i) {
      copy_long(to + i * to_step, from + i * from_step, bytes);
    }
    return;
  }
  switch (bytes) {
    case 1: copy_sized(1, to, to_step, from, from_step, count); return;
    case 2: copy_sized(2, to, to_step, from, from_step, count); return;
    case 4: copy_sized(4, to, to_step, from, from_step, count); return;
    case 8: copy_sized(8, to, to_step, from, from_step, count); return;
    case 16: copy_sized(16, to, to_step, from, from_step, count); return;
    case 32: copy_sized(32, to, to_step, from, from_step, count); return;
    case 64: copy_sized(64, to, to_step, from, from_step, count); return;
    default: break;
  }
  const __mmask64 lanes = qcc_first_lanes((int32_t)bytes);
  for (ptrdiff_t i = 0; i < count; ++i) {
    _mm512_mask_storeu_epi8(to + i * to_step, lanes, _mm512_maskz_loadu_epi8(lanes, from + i * from_step));
  }
}

void qcc_concat_avx512(const qcc_concat_params *params, const void *const *inputs,
                       const int32_t *QCC_RESTRICT block_bytes, const void *QCC_RESTRICT constant,
                       void *QCC_RESTRICT output) {
  qcc_concat_runs(copy_runs, params, inputs, block_bytes, constant, output);
}

void qcc_s8_copy_avx512(const qcc_copy_params *params, const void *QCC_RESTRICT input, void *QCC_RESTRICT output) {
  qcc_copy_axes(copy_runs, params, input, output);
}

static void fill_long(int8_t *to, __m512i value, ptrdiff_t bytes) {
  for (ptrdiff_t i = 0; i < bytes; i += 64) {
    _mm512_mask_storeu_epi8(to + i, qcc_first_lanes(bytes - i < 64 ? (int32_t)(bytes - i) : 64), value);
  }
}

void qcc_s8_gather_avx512(const qcc_avx512_gather_params *params, const int8_t *QCC_RESTRICT input,
                          const int32_t *QCC_RESTRICT index, int8_t *QCC_RESTRICT output) {
  const int32_t before = params->before, run = params->run, after = params->after;
  const int32_t width = before + run + after;
  const int32_t *shape = params->shape;
  const int32_t *t0 = index, *t1 = t0 + shape[0], *t2 = t1 + shape[1], *t3 = t2 + shape[2], *t4 = t3 + shape[3];
  const __m512i value = _mm512_set1_epi8((int8_t)params->fill);
  const __mmask64 lanes = qcc_first_lanes(width);
  const __mmask64 inside = width <= 64 ? qcc_first_lanes(run) << before : 0;
  for (int32_t i0 = 0; i0 < shape[0]; ++i0) {
    for (int32_t i1 = 0; i1 < shape[1]; ++i1) {
      for (int32_t i2 = 0; i2 < shape[2]; ++i2) {
        for (int32_t i3 = 0; i3 < shape[3]; ++i3) {
          const int32_t outside = (t0[i0] | t1[i1] | t2[i2] | t3[i3]) < 0;
          const ptrdiff_t base = outside ? 0 : (ptrdiff_t)t0[i0] + t1[i1] + t2[i2] + t3[i3];
          for (int32_t i4 = 0; i4 < shape[4]; ++i4, output += width) {
            if (outside || t4[i4] < 0) {
              fill_long(output, value, width);
              continue;
            }
            const int8_t *from = input + base + t4[i4];
            if (width <= 64) { /* the lanes before the run are not read */
              _mm512_mask_storeu_epi8(output, lanes, _mm512_mask_loadu_epi8(value, inside, from - before));
            } else {
              fill_long(output, value, before);
              copy_runs(output + before, 0, from, 0, run, 1);
              fill_long(output + before + run, value, after);
            }
          }
        }
      }
    }
  }
}

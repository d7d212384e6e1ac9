/* Runs of bytes: filled, copied. */
#ifndef QCC_NEON_COPY_H
#define QCC_NEON_COPY_H

#include "qcc_neon.h"

QCC_INLINE void qcc_fill(int8_t *to, int32_t value, ptrdiff_t count) {
  const int8x16_t v = vdupq_n_s8((int8_t)value);
  if (count >= 16) {
    const ptrdiff_t last = count - 16;
    for (ptrdiff_t i = 0; i < last; i += 16) {
      vst1q_s8(to + i, v);
    }
    vst1q_s8(to + last, v); /* overlaps the one before */
  } else {
    qcc_store_few(to, v, (int32_t)count);
  }
}

QCC_INLINE void qcc_copy(int8_t *to, const int8_t *from, ptrdiff_t count) {
  if (count >= 16) {
    const ptrdiff_t last = count - 16;
    ptrdiff_t i = 0;
    for (; i + 64 <= count; i += 64) {
      qcc_copy_64(to + i, from + i);
    }
    for (; i < last; i += 16) {
      vst1q_s8(to + i, vld1q_s8(from + i));
    }
    vst1q_s8(to + last, vld1q_s8(from + last));
  } else {
    for (ptrdiff_t i = 0; i < count; ++i) {
      to[i] = from[i];
    }
  }
}

#endif

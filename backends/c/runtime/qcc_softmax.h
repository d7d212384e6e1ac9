/* The division of both softmax kernels. */
#ifndef QCC_SOFTMAX_H
#define QCC_SOFTMAX_H

#include <stdint.h>

/* min(dividend / divisor, 255), bit by bit: 32-bit processors have no 64-bit division and would call a library. */
static inline int32_t qcc_divide_to_255(int64_t dividend, int64_t divisor) {
  int32_t quotient = 0;
  if (dividend >= divisor * 256) {
    return 255;
  }
  for (int32_t bit = 7; bit >= 0; --bit) {
    const int64_t part = divisor * ((int64_t)1 << bit);
    if (dividend >= part) {
      dividend -= part;
      quotient += 1 << bit;
    }
  }
  return quotient;
}

#endif

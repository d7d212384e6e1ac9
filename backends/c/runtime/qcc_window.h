/* The taps of a pooling window that lie on the image. */
#ifndef QCC_WINDOW_H
#define QCC_WINDOW_H

#include <stdint.h>

/* The taps of one axis: the first, and their number (0 or less: none). */
typedef struct {
  int32_t first, count;
} qcc_range;

static inline qcc_range qcc_taps_inside(int32_t start, int32_t taps, int32_t dilation, int32_t size) {
  const int32_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
  const int32_t end = start >= size ? 0 : (size - 1 - start) / dilation + 1;
  const qcc_range r = {first, (end < taps ? end : taps) - first};
  return r;
}

#endif

/* Firmware around the emitted digits library: classifies the images in samples.h, in integers only.
 *
 * The library allocates nothing and keeps no state: the caller owns the arena. Input and output lie inside it, at the
 * offsets that the header gives, so they need no memory of their own.
 *
 * On a board, replace printf by what the board has; nothing else here needs an operating system.
 */
#include "digits.h"
#include "samples.h"

#include <stdint.h>
#include <stdio.h>

/* Larger than needed, so that an aligned arena lies somewhere inside, whatever the alignment is. */
static int8_t memory[DIGITS_ARENA_BYTES + DIGITS_ARENA_ALIGN];

/* The model wants pixel / 16, and its input q means (q - ZERO_POINT) * SCALE. A pixel has 17 values, so this is a
 * table; the compiler computes it, and no float is left at run time. */
#define Q(pixel) ((int)((pixel) / 16.0 / DIGITS_INPUT_SCALE + 0.5) + DIGITS_INPUT_ZERO_POINT)
static const int16_t quantized[17] = {Q(0), Q(1), Q(2),  Q(3),  Q(4),  Q(5),  Q(6),  Q(7), Q(8),
                                      Q(9), Q(10), Q(11), Q(12), Q(13), Q(14), Q(15), Q(16)};

static int classify(int8_t *arena, const uint8_t *pixels) {
  int8_t *const in = arena + DIGITS_INPUT_ARENA_OFFSET;
  const int8_t *const scores = arena + DIGITS_OUTPUT_ARENA_OFFSET;
  int best = 0;
  int i;
  for (i = 0; i < DIGITS_INPUT_ELEMENTS; ++i) {
    in[i] = (int8_t)quantized[pixels[i]];
  }
  if (digits_run(arena, in, arena + DIGITS_OUTPUT_ARENA_OFFSET) != 0) {
    return -1;
  }
  for (i = 1; i < DIGITS_OUTPUT_ELEMENTS; ++i) {
    if (scores[i] > scores[best]) {
      best = i;
    }
  }
  return best;
}

int main(void) {
  const uintptr_t beyond = (uintptr_t)memory % DIGITS_ARENA_ALIGN;
  int8_t *const arena = memory + (beyond == 0 ? 0 : DIGITS_ARENA_ALIGN - beyond);
  int wrong = 0;
  int digit;
  for (digit = 0; digit < SAMPLES; ++digit) {
    const int found = classify(arena, samples[digit]);
    printf("image of %d: %d\n", digit, found);
    wrong += found != digit;
  }
  printf("%d of %d right\n", SAMPLES - wrong, SAMPLES);
  return wrong != 0;
}

/* Included before every file of a program whose instructions are counted: marks for qemu_count.c.
 *
 * They are hints without a meaning, which any processor of the architecture passes over. A step of a library ends with one.
 */
#ifndef COUNT_MARKS_H
#define COUNT_MARKS_H

#if defined(__aarch64__)
#define COUNT_BEGIN() __asm__ volatile("hint #124" ::: "memory")
#define COUNT_STEP() __asm__ volatile("hint #125" ::: "memory")
#define COUNT_END() __asm__ volatile("hint #126" ::: "memory")
#elif defined(__thumb__)
#define COUNT_BEGIN() __asm__ volatile(".inst.w 0xf3af8074" ::: "memory")
#define COUNT_STEP() __asm__ volatile(".inst.w 0xf3af8075" ::: "memory")
#define COUNT_END() __asm__ volatile(".inst.w 0xf3af8076" ::: "memory")
#elif defined(__arm__)
#define COUNT_BEGIN() __asm__ volatile(".inst 0xe320f074" ::: "memory")
#define COUNT_STEP() __asm__ volatile(".inst 0xe320f075" ::: "memory")
#define COUNT_END() __asm__ volatile(".inst 0xe320f076" ::: "memory")
#else
#error "there are no marks for this architecture"
#endif

#define QCC_AFTER_STEP(index, data, bytes) COUNT_STEP()

#endif

/* Reset code for test programs on Cortex-M boards, with the memory functions that compilers call by themselves.
 * Linked with cortex_m_mps2.ld. A fault ends the program with status 99.
 */
#include "cortex_m_semihosting.h"

#include <stddef.h>

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
int main(void);
void reset_handler(void);
void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

void *memcpy(void *to, const void *from, size_t count) {
  volatile unsigned char *destination = (volatile unsigned char *)to; /* volatile: not turned into a call of itself */
  const unsigned char *source = (const unsigned char *)from;
  while (count-- > 0) {
    *destination++ = *source++;
  }
  return to;
}

void *memmove(void *to, const void *from, size_t count) {
  volatile unsigned char *destination = (volatile unsigned char *)to;
  const unsigned char *source = (const unsigned char *)from;
  if ((uintptr_t)to <= (uintptr_t)from) {
    return memcpy(to, from, count);
  }
  while (count-- > 0) {
    destination[count] = source[count];
  }
  return to;
}

void *memset(void *to, int value, size_t count) {
  volatile unsigned char *destination = (volatile unsigned char *)to;
  while (count-- > 0) {
    *destination++ = (unsigned char)value;
  }
  return to;
}

/* The names that clang calls them by, from the run-time ABI for the Arm architecture; memset's operands change places. */
#define QCC_COPIES(suffix)                                                                        \
  void __aeabi_memcpy##suffix(void *to, const void *from, size_t count);                          \
  void __aeabi_memmove##suffix(void *to, const void *from, size_t count);                         \
  void __aeabi_memset##suffix(void *to, size_t count, int value);                                 \
  void __aeabi_memclr##suffix(void *to, size_t count);                                            \
  void __aeabi_memcpy##suffix(void *to, const void *from, size_t count) { memcpy(to, from, count); }   \
  void __aeabi_memmove##suffix(void *to, const void *from, size_t count) { memmove(to, from, count); } \
  void __aeabi_memset##suffix(void *to, size_t count, int value) { memset(to, value, count); }    \
  void __aeabi_memclr##suffix(void *to, size_t count) { memset(to, 0, count); }
QCC_COPIES()
QCC_COPIES(4)
QCC_COPIES(8)

static void fault(void) { program_exit(99); }

void reset_handler(void) {
  const uint32_t *source = data_load;
  uint32_t *destination;
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: switch the FPU on */
  __asm__ volatile("dsb\n isb" ::: "memory");
  for (destination = data_start; destination < data_end; ++destination) {
    *destination = *source++;
  }
  for (destination = bss_start; destination < bss_end; ++destination) {
    *destination = 0;
  }
  program_exit(main());
}

typedef void (*handler)(void);
extern const handler vectors[15];
extern const uintptr_t initial_stack;

__attribute__((section(".vectors.0"), used)) const uintptr_t initial_stack = (uintptr_t)stack_top;
__attribute__((section(".vectors.1"), used)) const handler vectors[15] = {
    reset_handler, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault};

/* Counts executed instructions, by address, between the marks of count_marks.h: a plugin for QEMU (plugin API 1).
 *
 *     qemu-aarch64 -plugin qemu_count.so,out=counts.txt PROGRAM
 *
 * Writes "STEP ADDRESS COUNT" (decimal, hexadecimal, decimal) for every instruction that was executed in a step, at its
 * end. Step 0 begins at COUNT_BEGIN, each COUNT_STEP begins the next, COUNT_END ends the last. The marks are not
 * counted. Exact for programs of one thread. QEMU's header is not packaged everywhere, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
enum { NO_REGISTERS = 0, ADD_U64 = 0 };
typedef void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned, void *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed, int, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

#define EXPORTED __attribute__((visibility("default")))
EXPORTED int qemu_plugin_version = 1;

enum mark { NO_MARK, BEGIN, STEP, END };

/* One for each translation of an instruction. */
typedef struct counter {
  struct counter *next;
  uint64_t address, count;
} counter;

static counter *counters;
static FILE *out;
static int step = -1; /* no region is open */

/* Ends a step: its counts are written, unless no region is open, and all begin at zero again. */
static void on_mark(unsigned cpu, void *data) {
  const enum mark mark = (enum mark)(uintptr_t)data;
  counter *c;
  (void)cpu;
  for (c = counters; c != NULL; c = c->next) {
    if (step >= 0 && c->count != 0) {
      fprintf(out, "%d %" PRIx64 " %" PRIu64 "\n", step, c->address, c->count);
    }
    c->count = 0;
  }
  step = mark == BEGIN ? 0 : mark == END || step < 0 ? -1 : step + 1;
  if (mark == END) {
    fflush(out);
  }
}

/* Hints that no processor has a use for; see count_marks.h. */
static enum mark mark_of(const struct qemu_plugin_insn *instruction) {
  static const uint32_t words[][3] = {
      {0xd5032f9fu, 0xd5032fbfu, 0xd5032fdfu}, /* A64 hint #124, #125, #126 */
      {0x8074f3afu, 0x8075f3afu, 0x8076f3afu}, /* T32 nop.w with hint 0x74, 0x75, 0x76; the first halfword is the low one */
      {0xe320f074u, 0xe320f075u, 0xe320f076u}, /* A32 the same */
  };
  uint32_t word;
  size_t set, i;
  if (qemu_plugin_insn_size(instruction) < 4) { /* QEMU 7.2 says 6 where the next instruction crosses a page */
    return NO_MARK;
  }
  memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
  for (set = 0; set < sizeof words / sizeof *words; ++set) {
    for (i = 0; i < 3; ++i) {
      if (words[set][i] == word) {
        return (enum mark)(BEGIN + i);
      }
    }
  }
  return NO_MARK;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  const size_t count = qemu_plugin_tb_n_insns(block);
  size_t i;
  (void)id;
  for (i = 0; i < count; ++i) {
    struct qemu_plugin_insn *const instruction = qemu_plugin_tb_get_insn(block, i);
    const enum mark mark = mark_of(instruction);
    if (mark != NO_MARK) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, NO_REGISTERS, (void *)(uintptr_t)mark);
    } else {
      counter *const c = calloc(1, sizeof *c);
      if (c == NULL) {
        abort();
      }
      c->address = qemu_plugin_insn_vaddr(instruction);
      c->next = counters;
      counters = c;
      qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, &c->count, 1);
    }
  }
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
    fprintf(stderr, "qemu_count: give out=FILE\n");
    return -1;
  }
  out = fopen(argv[0] + 4, "w");
  if (out == NULL) {
    fprintf(stderr, "qemu_count: cannot write %s\n", argv[0] + 4);
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  return 0;
}

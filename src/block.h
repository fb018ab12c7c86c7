/* Blocks of memory for plans, aligned to a page and, if large, to a huge page. */
#ifndef FC_BLOCK_H
#define FC_BLOCK_H
#include <stddef.h>

void *fc_block(size_t bytes); /* NULL if there is no memory */
void fc_block_free(void *block);
#endif

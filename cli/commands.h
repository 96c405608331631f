/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* commands.h - the commands in main.c's table, one line each, by their files */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#endif

# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh: what a script of scripts/guest needs stands in its head,
# in lines "# guest: NAME=VALUE...", of which it may have several:
#
#	limit=N		seconds until it counts as hung, as an arithmetic expression
#			(variables: those below); several scripts have the sum, and
#			0 is no limit
#	cpus=N		how many CPUs (2); the most that any of the scripts wants
#	mem=SIZE	memory, such as 2G
#	append=WORD	an option for the kernel
#	root=DIR=DEST	DIR of the build directory's klp/ is DEST in the guest
#	interactive=1	has the terminal for itself
#	VARIABLE=VALUE	taken from the environment; VALUE where that has none
#
# A value has no blanks.

# read_heads SCRIPT...: sets HEAD (the settings with one value), HEAD_APPEND,
# HEAD_ROOT and HEAD_VARS (names and values).
read_heads() {
	local script word name value words limit
	declare -gA HEAD=([cpus]=2) HEAD_VARS=()
	HEAD_APPEND=() HEAD_ROOT=()
	for script; do
		limit=''
		mapfile -t words < <(sed -n 's/^# guest: //p' "$script" | tr -s ' \t' '\n')
		for word in "${words[@]}"; do
			name=${word%%=*} value=${word#*=}
			[[ $word == *=* ]] || die "$script: '$word' in its head is not NAME=VALUE"
			[[ $name == [A-Z]* ]] || continue
			[[ -z ${!name:-} ]] || value=${!name}
			HEAD_VARS[$name]=$value
		done
		for word in "${words[@]}"; do
			name=${word%%=*} value=${word#*=}
			case $name in
			[A-Z]*) ;;
			limit)
				limit=$(head_limit "$value") || die "$script: limit=$value: cannot be computed"
				HEAD[limit]=$((${HEAD[limit]:-0} + limit))
				;;
			cpus) ((value <= HEAD[cpus])) || HEAD[cpus]=$value ;;
			mem | interactive) HEAD[$name]=$value ;;
			append) HEAD_APPEND+=("$value") ;;
			root) HEAD_ROOT+=("$value") ;;
			*) die "$script: there is no setting '$name' for its head" ;;
			esac
		done
		[[ -n $limit ]] || die "$script: its head sets no limit"
	done
}

# head_limit EXPRESSION: its value, with the variables of the heads.
head_limit() {
	local name
	for name in "${!HEAD_VARS[@]}"; do
		[[ ${HEAD_VARS[$name]} != +([0-9]) ]] || declare -i "$name=${HEAD_VARS[$name]}"
	done
	[[ $1 == +([A-Z0-9*+/]) ]] && echo $(($1))
}

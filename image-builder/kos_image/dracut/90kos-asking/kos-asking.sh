# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154
#
# What scripts of an initrd read that talk to whoever sits there, and make a LUKS2 header. $system is where /dev and /proc
# lie, $thing is what is encrypted, in a word, $credential names the system credential that may hold its passphrase.
shortest=8 # of a passphrase, in bytes

say() {
  while read -r tty _; do
    [ -w "$system/dev/$tty" ] && printf '\r\n%s\r\n' "$1" >"$system/dev/$tty"
  done <"$system/proc/consoles"
}

# give_up SENTENCE: nothing of the main system starts.
give_up() {
  if ! systemd-ask-password --timeout=0 --emoji=no --echo=yes --no-output "$1 Press Enter to power off:"; then
    say "$1"
    sleep 60
  fi
  systemctl --force poweroff
  sleep 60 # it takes a moment, and a failure before then would start the emergency mode
  exit 1
}

# ask QUESTION: the answer is in $answer. The first may come from outside, the next ones are typed.
ask() {
  answer=
  if [ -n "$credential" ]; then
    answer=$(systemd-ask-password --timeout=0 --emoji=no --credential="$credential" --id=kos "$1")
  else
    answer=$(systemd-ask-password --timeout=0 --emoji=no --id=kos "$1")
  fi
}

# choose_passphrase SENTENCE: a new one, typed twice, is in $answer; the sentence comes before the first question.
choose_passphrase() {
  said=$1
  while :; do
    ask "$said Choose a passphrase of at least $shortest characters:" || continue
    first=$answer
    if [ ${#first} -lt $shortest ]; then
      said="That is shorter than $shortest characters."
    elif ask "The same passphrase again:" && [ "$answer" = "$first" ]; then
      return
    else
      said="These two were not the same."
    fi
    credential=
  done
}

# How cryptsetup makes a header, in the words of its command line. Never what the tool measures: on a busy machine that is
# far too little.
header() {
  memory=$(awk '/^MemTotal:/ { kib = int($2 / 4); print (kib > 1048576 ? 1048576 : kib) }' "$system/proc/meminfo")
  processors=$(awk '/^processor/ { n++ } END { print (n > 4 ? 4 : (n ? n : 1)) }' "$system/proc/cpuinfo")
  echo "--batch-mode --type luks2 --cipher aes-xts-plain64 --key-size 512 --key-file=- --pbkdf argon2id" \
    "--pbkdf-memory $memory --pbkdf-parallel $processors --pbkdf-force-iterations 4"
}

# show_recovery_key DEVICE: make one, and show it where consoles are; $answer opens the device.
show_recovery_key() {
  key=$(PASSWORD=$answer systemd-cryptenroll --recovery-key "$1" 2>/dev/null) ||
    give_up "The recovery key of this $thing cannot be made: start again."
  say "The recovery key of this $thing, shown this once. It opens the $thing when the passphrase is lost:"
  say "    $key"
  key=
}

wait_until_written_down() {
  systemd-ask-password --timeout=0 --emoji=no --echo=yes --no-output \
    "Write the recovery key down, and keep it apart from the $thing. Then press Enter:"
}

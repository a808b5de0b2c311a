"""Sequences that speak to a terminal, for tests that nothing lets them through."""

ESC, C1_CSI, ST = "\x1b", "\x9b", "\x1b\\"
SEQUENCES = [
    f"{ESC}[2J",  # clear the screen
    f"{ESC}[H",  # go to its corner
    f"{ESC}[1A{ESC}[2K",  # overwrite the line before
    f"{ESC}[31m",  # colours
    f"{ESC}[8m",  # hide
    f"{ESC}[?25l",  # hide the cursor
    f"{ESC}[?1049h",  # another screen
    f"{ESC}[?1000h",  # report the mouse
    f"{ESC}[?2004h",  # bracketed paste
    f"{ESC}[6n",  # have the terminal type where the cursor is
    f"{ESC}[c",  # and what it is
    f"{ESC}[21t",  # and its title
    f"{ESC}[5i",  # print
    f"{ESC}[20l",
    f"{ESC}]0;title\x07",
    f"{ESC}]2;title{ST}",
    f"{ESC}]4;1;?\x07",
    f"{ESC}]8;;http://example.org\x07link{ESC}]8;;\x07",
    f"{ESC}]9;notify\x07",
    f"{ESC}]52;c;ZXZpbA==\x07",  # the clipboard
    f"{ESC}]1337;File=inline=1:AAAA\x07",
    f'{ESC}P$q"p{ST}',
    f"{ESC}P+q544e{ST}",
    f"{ESC}_Gi=1{ST}",
    f"{ESC}^private{ST}",
    f"{ESC}Xstring{ST}",
    f"{ESC}c",  # reset
    f"{ESC}(0",  # line drawing in place of letters
    f"{ESC}#8",
    f"{ESC}7{ESC}8",
    f"{C1_CSI}2J",
    "\x9d0;title\x9c",
    "\x90q\x9c",
    "\x07",
    "\b\b\b\x7f",
    "\rstored; the receipt matches what was sent",
    "\x0b\x0c\x85\u2028\u2029",
    "\x0e\x0f\x05\x00",
    "\u202egnol\u202c\u2066\u2069",
    "\u200b\u200d\ufeff\U000e0041\ud800",
]
ALL = "".join(SEQUENCES)
ANY = f"{ALL} \n[bold]x[/] [/nothing] :smile:"
SAID = ANY.replace("\ud800", "")
"""As far as UTF-8 can hold it."""


def raw(text: str) -> set[str]:
    """Return what is in a text that is neither printable nor the end of a line, in ASCII."""
    return {ascii(each) for each in text if not each.isprintable() and each != "\n"}

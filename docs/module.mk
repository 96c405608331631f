MANPAGES += docs/vdisk.1

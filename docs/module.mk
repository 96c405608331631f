MANPAGES += docs/vdisk.1
MANPAGES += docs/vmm-lite.8

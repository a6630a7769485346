#!/bin/sh
# Runs once, as root, while a bento's image is built: makes `alserve` a command of the image, beside the service.
set -eu
echo "$BENTO_PATH/src" > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/alserve.pth"
cat > "$VIRTUAL_ENV/bin/alserve" << END
#!$VIRTUAL_ENV/bin/python
from alserve.cli import main

main()
END
chmod 755 "$VIRTUAL_ENV/bin/alserve"

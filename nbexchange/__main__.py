"""python -m nbexchange"""

from nbexchange.app import main

main()

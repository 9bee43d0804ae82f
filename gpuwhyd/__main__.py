from gpuwhyd.cli import main

raise SystemExit(main())

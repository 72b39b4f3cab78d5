<?php

declare(strict_types=1);

namespace Terbayar;

use RuntimeException;

/** A webhook that Terbayar has not sent. Answer it 401. */
final class WrongSignature extends RuntimeException
{
}

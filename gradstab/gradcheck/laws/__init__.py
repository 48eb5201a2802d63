"""What must hold of derivatives without any finite difference."""

"""What commands print and show: tables, notices, a page in the browser."""
